//! Every route of the twin has a line in the table of routes.

use std::{cell::RefCell, rc::Rc};

use actix_web::{App, test};
use rovi_common::{
    auth::{Service, routes},
    http::{self, Readiness},
    telemetry::Metrics,
};

use super::openapi;

#[actix_web::test]
async fn every_route_says_who_may_call_it() {
    let seen = Rc::new(RefCell::new(String::new()));
    let told = Rc::clone(&seen);
    let app = App::new()
        .configure(http::operations(
            "twin",
            Readiness::default(),
            Metrics::new(),
        ))
        .configure(http::docs(http::written(&openapi())))
        .configure(super::routes)
        .wrap_fn(move |request, service| {
            *told.borrow_mut() = format!("{:?}", request.resource_map());
            actix_web::dev::Service::call(service, request)
        });
    let app = test::init_service(app).await;
    test::call_service(&app, test::TestRequest::with_uri("/").to_request()).await;
    let patterns = routes::patterns_of(&seen.borrow());
    let api = serde_json::to_value(openapi()).unwrap();
    let gaps = Service::Twin.gaps(&patterns, &routes::documented(&api));
    assert!(gaps.is_empty(), "{}", gaps.join("\n"));
}
