//! Names that tenants give in metadata: nobody learns or loses anything by those of others.

use serde_json::{Value, json};

use super::support::Secure;

async fn name(secure: &Secure, token: &str, battery: &str, name: &str) -> (u16, Value) {
    let url = secure.hub(&format!("/db/{battery}/metadata"));
    secure.ask("PUT", &url, token, &json!({"name": name})).await
}

#[tokio::test]
async fn two_tenants_may_call_a_battery_alike_and_hear_nothing_of_it() {
    let secure = Secure::start().await;
    let (_, acme) = secure.token(&["uploader:tenant=acme"], None).await;
    let (_, beta) = secure.token(&["uploader:tenant=beta"], None).await;
    let register = async |token: &str, name: &str| {
        let url = secure.hub("/db/register");
        secure
            .ask("POST", &url, token, &json!({"name": name}))
            .await
    };
    for (token, name) in [(&beta, "beta-1"), (&beta, "beta-2"), (&acme, "acme-1")] {
        assert_eq!(register(token, name).await, (200, json!(name)));
    }
    // It takes the name that another tenant is about to give.
    assert_eq!(name(&secure, &beta, "beta-1", "acme-5").await.0, 200);
    assert_eq!(register(&acme, "acme-5").await, (200, json!("acme-5")));
    // Whether others have a name is not told.
    for taken in ["beta-2", "beta-9"] {
        assert_eq!(
            name(&secure, &acme, "acme-1", taken).await.0,
            200,
            "{taken}"
        );
    }
    // Among one's own a name stands once, and finds its battery again.
    let (status, told) = name(&secure, &acme, "acme-1", "acme-5").await;
    assert_eq!((status, &told["field"]), (409, &json!("name")));
    assert_eq!(register(&acme, "beta-9").await.0, 403);
    assert_eq!(register(&acme, "acme-5").await, (200, json!("acme-5")));
    assert_eq!(register(&beta, "beta-2").await, (200, json!("beta-2")));
}
