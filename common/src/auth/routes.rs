//! The one place that says what each route and socket needs.
//!
//! A route that has no line here is refused to everybody as soon as authentication is on, and fails
//! a test of its service: add its line below, in the order of the paths.

use super::role::Role::{self, Admin, Engineer, Reader, Uploader};

/// Which service a route belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The Data Hub.
    Hub,
    /// The Digital Twin.
    Twin,
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it tells nothing about batteries.
    Nothing,
    /// That the caller is known.
    Known,
    /// A role for the battery that `{battery}` of the path names.
    Battery(Role),
    /// That the caller is known; the answer holds only what the caller has this role for, which the
    /// handler sees to by its [`Access`](super::Access).
    Listed(Role),
    /// A role for what the body or query names, which the handler asks its
    /// [`Access`](super::Access) for.
    Named(Role),
    /// A role for everything.
    All(Role),
    /// That the caller is known; it is passed on to the twin, which decides by itself.
    Forwarded,
}

use Need::{All, Battery, Forwarded, Known, Listed, Named, Nothing};

/// A method, a path as the router knows it, and what it needs.
pub type Line = (&'static str, &'static str, Need);

/// What both services have.
pub const SHARED: &[Line] = &[
    ("GET", "/health", Nothing),
    ("GET", "/ready", Nothing),
    ("GET", "/metrics", All(Reader)),
    ("GET", "/openapi.json", Nothing),
    ("GET", "/asyncapi.json", Nothing),
    ("GET", "/docs", Nothing),
    ("GET", "/docs/{_:.*}", Nothing),
    ("GET", "/limits", Known),
    ("GET", "/auth/me", Known),
    ("POST", "/auth/session", Known),
    // Whoever is not known any more signs out, too.
    ("DELETE", "/auth/session", Nothing),
    ("POST", "/auth/ticket", Known),
];

/// What the hub has besides.
pub const HUB: &[Line] = &[
    ("GET", "/", Nothing),
    ("GET", "/audit", All(Admin)),
    ("GET", "/auth/tokens", Listed(Admin)),
    ("POST", "/auth/tokens", Named(Admin)),
    ("DELETE", "/auth/tokens/{token}", Named(Admin)),
    ("GET", "/auth/revocations", All(Admin)),
    ("POST", "/auth/revocations", All(Admin)),
    ("GET", "/auth/batteries", All(Admin)),
    ("PUT", "/auth/batteries/{battery}", All(Admin)),
    ("POST", "/db/register", Named(Uploader)),
    ("GET", "/db/stats", Listed(Reader)),
    ("GET", "/db/batteries", Listed(Reader)),
    ("GET", "/db/upload/{battery}", Battery(Uploader)),
    ("POST", "/db/upload/{battery}", Battery(Uploader)),
    ("POST", "/db/upload/{battery}/battdat", Battery(Uploader)),
    ("DELETE", "/db/{battery}", Battery(Admin)),
    ("GET", "/db/{battery}/metadata", Battery(Reader)),
    ("PUT", "/db/{battery}/metadata", Battery(Uploader)),
    ("PATCH", "/db/{battery}/metadata", Battery(Uploader)),
    ("GET", "/db/{battery}/metadata/revisions", Battery(Reader)),
    ("GET", "/db/{battery}/retention", Battery(Reader)),
    ("PUT", "/db/{battery}/retention", Battery(Admin)),
    ("GET", "/db/{battery}/intervals", Battery(Reader)),
    ("GET", "/db/{battery}/intervals/{label}", Battery(Reader)),
    ("PUT", "/db/{battery}/intervals/{label}", Battery(Engineer)),
    (
        "DELETE",
        "/db/{battery}/intervals/{label}",
        Battery(Engineer),
    ),
    ("GET", "/db/{battery}/tables", Battery(Reader)),
    ("GET", "/db/{battery}/tables/{table}", Battery(Reader)),
    ("PUT", "/db/{battery}/tables/{table}", Battery(Uploader)),
    ("GET", "/db/{battery}/cycles", Battery(Reader)),
    ("GET", "/db/{battery}/rejected", Battery(Reader)),
    ("DELETE", "/db/{battery}/rejected", Battery(Engineer)),
    ("POST", "/db/{battery}/rejected/replay", Battery(Engineer)),
    ("PATCH", "/db/{battery}/columns", Battery(Uploader)),
    ("GET", "/db/{battery}/changes", Battery(Reader)),
    ("GET", "/db/{battery}/rows", Battery(Reader)),
    ("DELETE", "/db/{battery}/rows", Battery(Engineer)),
    ("GET", "/db/{battery}/rows/{seq}", Battery(Reader)),
    ("PUT", "/db/{battery}/rows/{seq}", Battery(Engineer)),
    ("GET", "/db/{battery}/corrections", Battery(Reader)),
    (
        "GET",
        "/db/{battery}/corrections/{revision}",
        Battery(Reader),
    ),
    ("GET", "/db/{battery}/rows/export", Battery(Reader)),
    ("GET", "/db/{battery}/statistics", Battery(Reader)),
    ("GET", "/db/{battery}/estimates", Battery(Reader)),
    ("GET", "/db/{battery}/estimates/export", Battery(Reader)),
    ("GET", "/db/{battery}/estimates/lineage", Battery(Reader)),
    (
        "GET",
        "/db/{battery}/estimators/{estimator}/revisions",
        Battery(Reader),
    ),
    (
        "GET",
        "/db/{battery}/estimators/{estimator}/revisions/{revision}",
        Battery(Reader),
    ),
    // Scripts and what they read may hold more than a reader is meant to see.
    (
        "GET",
        "/db/{battery}/estimators/{estimator}/files/{digest}",
        Battery(Engineer),
    ),
    ("GET", "/db/{battery}/histogram", Battery(Reader)),
    ("GET", "/dashboard/{battery}/img/{picture}", Battery(Reader)),
    ("GET", "/db/{battery}/signals", Battery(Reader)),
    ("GET", "/db/{battery}/signals/{signal}", Battery(Reader)),
    ("PUT", "/db/{battery}/signals/{signal}", Battery(Engineer)),
    (
        "DELETE",
        "/db/{battery}/signals/{signal}",
        Battery(Engineer),
    ),
    ("GET", "/ws", Forwarded),
    ("GET", "/db/services", All(Reader)),
    // Pages hold no data: they ask for them as everybody does.
    ("GET", "/dashboard/{name}", Nothing),
    ("GET", "/login", Nothing),
    ("GET", "/register", Nothing),
    ("GET", "/status", Nothing),
    ("GET", "/assets/{file}", Nothing),
];

/// Paths that the hub passes on to the twin, whatever follows.
pub const FORWARDED: &[&str] = &["/online", "/prognosis", "/events"];

/// What the twin has besides.
pub const TWIN: &[Line] = &[
    ("GET", "/online/status", Listed(Reader)),
    ("GET", "/online/schema", Nothing),
    ("GET", "/online/services", All(Reader)),
    ("GET", "/online/alerts", Listed(Reader)),
    ("GET", "/online/alerts/rules", Listed(Reader)),
    ("GET", "/online/alerts/rules/{rule}", Named(Reader)),
    ("PUT", "/online/alerts/rules/{rule}", Named(Engineer)),
    ("DELETE", "/online/alerts/rules/{rule}", Named(Engineer)),
    ("POST", "/online/register", Named(Engineer)),
    ("GET", "/online/{battery}", Battery(Reader)),
    ("DELETE", "/online/{battery}", Battery(Engineer)),
    ("DELETE", "/online/{battery}/{estimator}", Battery(Engineer)),
    (
        "POST",
        "/online/{battery}/{estimator}/{action}",
        Battery(Engineer),
    ),
    ("GET", "/online/{battery}/backtest", Battery(Reader)),
    ("POST", "/online/{battery}/backtest", Battery(Engineer)),
    ("GET", "/online/{battery}/backtest/{id}", Battery(Reader)),
    (
        "DELETE",
        "/online/{battery}/backtest/{id}",
        Battery(Engineer),
    ),
    (
        "POST",
        "/online/{battery}/backtest/{id}/promote",
        Battery(Engineer),
    ),
    ("GET", "/ws", Listed(Reader)),
    ("GET", "/events", Listed(Reader)),
];

impl Service {
    /// Returns the lines of the service.
    pub fn lines(self) -> impl Iterator<Item = &'static Line> {
        let own = match self {
            Self::Hub => HUB,
            Self::Twin => TWIN,
        };
        SHARED.iter().chain(own)
    }

    /// Returns what a route needs; `None` where nobody has said so.
    pub fn need(self, method: &str, pattern: &str) -> Option<Need> {
        let found = self
            .lines()
            .find(|(known, path, _)| (*known, *path) == (method, pattern));
        found.map(|(_, _, need)| *need)
    }

    /// Lists the methods of a path.
    pub fn methods(self, pattern: &str) -> Vec<&'static str> {
        let of_path = self.lines().filter(|(_, path, _)| *path == pattern);
        of_path.map(|(method, _, _)| *method).collect()
    }

    /// Lists routes without a line in this file, and lines without a route, each in words.
    ///
    /// `patterns` are the paths that the router knows, `documented` the methods and paths of the
    /// description of the interface.
    pub fn gaps(self, patterns: &[String], documented: &[(String, String)]) -> Vec<String> {
        let place = "common/src/auth/routes.rs";
        let forwarded = |path: &str| self == Self::Hub && FORWARDED.contains(&path);
        let unknown = patterns
            .iter()
            .filter(|path| !forwarded(path) && self.methods(path).is_empty())
            .map(|path| format!("{path} has no line: say in {place} who may call it"));
        let undecided = documented
            .iter()
            .filter(|(method, path)| self.need(method, path).is_none())
            .map(|(method, path)| {
                format!("{method} {path} has no line: say in {place} who may call it")
            });
        let stale = self
            .lines()
            .filter(|(_, path, _)| !patterns.iter().any(|known| known == path))
            .map(|(method, path, _)| {
                format!("{method} {path} stands in {place}, but there is no such route")
            });
        unknown.chain(undecided).chain(stale).collect()
    }
}

/// Reads the paths that a router knows out of the `Debug` of its resource map, the one place where
/// actix-web shows them.
#[cfg(feature = "testing")]
pub fn patterns_of(resource_map: &str) -> Vec<String> {
    let patterns = resource_map.split("patterns: Single(\"").skip(1);
    let patterns = patterns.filter_map(|rest| rest.split('"').next());
    patterns
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Reads methods and paths of an OpenAPI document.
#[cfg(feature = "testing")]
pub fn documented(openapi: &serde_json::Value) -> Vec<(String, String)> {
    let paths = openapi.get("paths").and_then(serde_json::Value::as_object);
    let routes = paths.into_iter().flatten().flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, _)| (method.to_uppercase(), path.clone()))
    });
    routes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_stands_once_and_names_the_battery_it_needs_a_role_for() {
        for service in [Service::Hub, Service::Twin] {
            let mut seen = Vec::new();
            for (method, path, need) in service.lines() {
                assert!(
                    !seen.contains(&(method, path)),
                    "{method} {path} stands twice"
                );
                seen.push((method, path));
                if matches!(need, Battery(_)) {
                    assert!(
                        path.contains("/{battery}"),
                        "{method} {path} names no battery"
                    );
                }
            }
        }
    }

    #[test]
    fn a_route_without_a_line_is_told_with_the_place_where_it_belongs() {
        let patterns = ["/db/{battery}/new".to_owned()];
        let documented = [("PUT".to_owned(), "/db/stats".to_owned())];
        let gaps = Service::Hub.gaps(&patterns, &documented).join("\n");
        assert!(gaps.contains("/db/{battery}/new has no line: say in common/src/auth/routes.rs"));
        assert!(gaps.contains("PUT /db/stats has no line"));
        assert!(gaps.contains("GET /health stands in"));
    }
}
