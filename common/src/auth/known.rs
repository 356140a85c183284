//! What a service knows of tokens and batteries; it decides by this alone.
//!
//! The hub fills it from PostgreSQL, the twin from the bus; with either away, what was known goes on
//! to count.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    record::{JwtIdentity, Placement, Revocation, TokenRecord},
    role::{Grant, Role, Scope, Word},
};
use crate::name::BatteryName;

/// Tokens and the places of batteries.
#[derive(Debug)]
pub struct Known {
    inner: RwLock<Inner>,
    changes: watch::Sender<u64>,
    is_complete: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    tokens: HashMap<String, Arc<TokenRecord>>,
    placements: HashMap<BatteryName, Placement>,
    revocations: HashMap<String, Revocation>,
}

/// The batteries that somebody may see, for queries of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Visible {
    /// Whether that is all of them; the other fields are empty then.
    pub all: bool,
    /// These,
    pub names: Vec<String>,
    /// and those whose names begin so,
    pub prefixes: Vec<String>,
    /// but of the latter not these.
    pub except: Vec<String>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            inner: RwLock::default(),
            changes: watch::Sender::new(0),
            is_complete: AtomicBool::new(false),
        }
    }
}

impl Known {
    /// Returns a token by its id, also one that no longer counts.
    pub fn token(&self, id: &str) -> Option<Arc<TokenRecord>> {
        self.read().tokens.get(id).map(Arc::clone)
    }

    /// Takes a token, unless a newer revision of it is known.
    pub fn put_token(&self, token: TokenRecord) {
        self.change(|inner| {
            let known = inner.tokens.get(&token.id);
            let is_news = known.is_none_or(|known| known.revision < token.revision);
            if is_news {
                inner.tokens.insert(token.id.clone(), Arc::new(token));
            }
            is_news
        });
    }

    /// Forgets a token.
    pub fn forget_token(&self, id: &str) {
        self.change(|inner| inner.tokens.remove(id).is_some());
    }

    /// Takes what is said of a battery.
    pub fn place(&self, placement: Placement) {
        self.change(|inner| {
            let battery = placement.battery.clone();
            let before = inner.placements.insert(battery.clone(), placement);
            before.as_ref() != inner.placements.get(&battery)
        });
    }

    /// Forgets what was said of a battery.
    pub fn forget_place(&self, battery: &BatteryName) {
        self.change(|inner| inner.placements.remove(battery).is_some());
    }

    /// Takes a revocation of JWTs, unless a newer revision of it is known.
    pub fn revoke(&self, revocation: Revocation) {
        self.change(|inner| {
            let known = inner.revocations.get(&revocation.id);
            let is_news = known.is_none_or(|known| known.revision < revocation.revision);
            if is_news {
                inner.revocations.insert(revocation.id.clone(), revocation);
            }
            is_news
        });
    }

    /// Takes the revocations there were at some moment, besides those that are known: none is ever
    /// taken back.
    pub fn revoke_all(&self, revocations: Vec<Revocation>) {
        for one in revocations {
            self.revoke(one);
        }
    }

    /// Whether a JWT was revoked.
    pub fn is_revoked(&self, jwt: &JwtIdentity) -> bool {
        let inner = self.read();
        if inner.revocations.is_empty() {
            return false;
        }
        let covers = |id: String| {
            inner
                .revocations
                .get(&id)
                .is_some_and(|one| one.covers(jwt))
        };
        covers(Revocation::id_of_subject(&jwt.subject))
            || jwt
                .jti
                .as_deref()
                .is_some_and(|jti| covers(Revocation::id_of_jti(jti)))
    }

    /// Takes all there was at some moment, in place of what was known; tokens that were known by a
    /// newer revision than any of these stay.
    pub fn replace(&self, tokens: Vec<TokenRecord>, placements: Vec<Placement>) {
        self.change(|inner| {
            let newest = tokens.iter().map(|token| token.revision).max();
            let since = inner.tokens.iter();
            let since = since.filter(|(_, token)| Some(token.revision) > newest);
            let mut next: HashMap<_, _> = since
                .map(|(id, token)| (id.clone(), Arc::clone(token)))
                .collect();
            for token in tokens {
                let known = inner.tokens.get(&token.id);
                let token = match known {
                    Some(known) if known.revision >= token.revision => Arc::clone(known),
                    _ => Arc::new(token),
                };
                next.insert(token.id.clone(), token);
            }
            let placements: HashMap<_, _> = placements
                .into_iter()
                .map(|placement| (placement.battery.clone(), placement))
                .collect();
            let is_news = inner.tokens != next || inner.placements != placements;
            (inner.tokens, inner.placements) = (next, placements);
            is_news
        });
    }

    /// Returns what tells that something changed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Says that all there is was heard once.
    pub fn set_complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    /// Whether all there is was heard once: before, a token that is not known may well count, and a
    /// JWT may have been revoked.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Returns the tenant that a battery belongs to, if to any; nothing until all was heard, since a
    /// battery may have been given to another tenant than the one it is called after.
    pub fn tenant_of(&self, battery: &BatteryName) -> Option<Word> {
        if !self.is_complete() {
            return None;
        }
        let inner = self.read();
        let given = inner.placements.get(battery);
        given
            .and_then(|place| place.tenant.clone())
            .or_else(|| battery.as_str().split_once('-')?.0.parse().ok())
    }

    /// Whether grants give a role for a battery.
    pub fn may(&self, grants: &[Grant], role: Role, battery: &BatteryName) -> bool {
        let grants = grants.iter().filter(|grant| grant.role >= role);
        let inner = self.read();
        let place = inner.placements.get(battery);
        grants.map(|grant| &grant.scope).any(|scope| match scope {
            Scope::All => true,
            Scope::Battery(name) => name == battery,
            Scope::Tag(tag) => place.is_some_and(|place| place.tags.contains(tag)),
            Scope::Tenant(tenant) => match place.and_then(|place| place.tenant.as_ref()) {
                Some(owner) => owner == tenant,
                None => is_called_after(battery.as_str(), tenant.as_str()),
            },
        })
    }

    /// Whether grants give a role for all that another grant would give.
    pub fn covers(&self, grants: &[Grant], role: Role, scope: &Scope) -> bool {
        let grants = || grants.iter().filter(|grant| grant.role >= role);
        let has = |wanted: &Scope| {
            grants().any(|grant| grant.scope == Scope::All || grant.scope == *wanted)
        };
        match scope {
            Scope::Battery(battery) => {
                let grants: Vec<Grant> = grants().cloned().collect();
                self.may(&grants, role, battery)
            }
            other => has(other),
        }
    }

    /// Returns the batteries for which grants give a role.
    pub fn visible(&self, grants: &[Grant], role: Role) -> Visible {
        let mut visible = Visible::default();
        let inner = self.read();
        for grant in grants.iter().filter(|grant| grant.role >= role) {
            match &grant.scope {
                Scope::All => {
                    return Visible {
                        all: true,
                        ..Visible::default()
                    };
                }
                Scope::Battery(name) => visible.names.push(name.to_string()),
                Scope::Tag(tag) => {
                    let tagged = inner.placements.values();
                    let tagged = tagged.filter(|place| place.tags.contains(tag));
                    visible
                        .names
                        .extend(tagged.map(|place| place.battery.to_string()));
                }
                Scope::Tenant(tenant) => {
                    visible.prefixes.push(format!("{tenant}-"));
                    let owned = inner.placements.values();
                    for place in owned.filter(|place| place.tenant.is_some()) {
                        let name = place.battery.to_string();
                        if place.tenant.as_ref() == Some(tenant) {
                            visible.names.push(name);
                        } else if is_called_after(&name, tenant.as_str()) {
                            visible.except.push(name);
                        }
                    }
                }
            }
        }
        visible
    }

    fn change(&self, change: impl FnOnce(&mut Inner) -> bool) {
        if change(&mut self.write()) {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a name begins with a tenant's and a hyphen.
fn is_called_after(name: &str, tenant: &str) -> bool {
    let rest = name.strip_prefix(tenant);
    rest.is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> Vec<Grant> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn placed(battery: &str, tenant: Option<&str>, tags: &[&str]) -> Placement {
        Placement {
            battery: battery.parse().unwrap(),
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        }
    }

    fn known() -> Known {
        let known = Known::default();
        known.place(placed("acme-sold", Some("beta"), &[]));
        known.place(placed("b7", Some("acme"), &["lab"]));
        known
    }

    #[test]
    fn a_tenant_has_what_is_named_after_it_or_given_to_it_and_nothing_else() {
        let known = known();
        let acme = grants(&["engineer:tenant=acme"]);
        let may = |name: &str| known.may(&acme, Role::Reader, &name.parse().unwrap());
        assert!(may("acme-1") && may("b7"));
        for name in ["acme-sold", "acme", "acmex-1", "b8", "beta-1"] {
            assert!(!may(name), "{name}");
        }
        let visible = known.visible(&acme, Role::Reader);
        assert_eq!(visible.names, ["b7"]);
        assert_eq!(visible.prefixes, ["acme-"]);
        assert_eq!(visible.except, ["acme-sold"]);
    }

    #[test]
    fn the_tenant_of_a_battery_is_told_when_all_is_known() {
        let known = known();
        let tenant = |name: &str| known.tenant_of(&name.parse().unwrap());
        assert_eq!(tenant("acme-1"), None);
        known.set_complete();
        let told = |name| tenant(name).map(|tenant| tenant.to_string());
        assert_eq!(told("acme-1-x").as_deref(), Some("acme"));
        assert_eq!(told("acme-sold").as_deref(), Some("beta"));
        assert_eq!(told("b7").as_deref(), Some("acme"));
        assert_eq!(told("b8"), None);
        assert_eq!(told("-8"), None);
    }

    #[test]
    fn a_role_gives_no_more_than_itself() {
        let known = known();
        let some = grants(&["reader:tag=lab", "uploader:battery=b9"]);
        let may = |role, name: &str| known.may(&some, role, &name.parse().unwrap());
        assert!(may(Role::Reader, "b7") && !may(Role::Uploader, "b7"));
        assert!(may(Role::Reader, "b9") && may(Role::Uploader, "b9"));
        assert!(!may(Role::Engineer, "b9") && !may(Role::Reader, "b8"));
        assert!(!known.may(&[], Role::Reader, &"b7".parse().unwrap()));
    }

    #[test]
    fn nobody_grants_more_than_they_have() {
        let known = known();
        let acme = grants(&["admin:tenant=acme", "reader"]);
        let covers = |text: &str| {
            let grant: Grant = text.parse().unwrap();
            known.covers(&acme, Role::Admin, &grant.scope)
        };
        assert!(covers("reader:tenant=acme") && covers("admin:battery=acme-3"));
        for text in [
            "reader",
            "reader:tenant=beta",
            "reader:tag=lab",
            "reader:battery=x",
        ] {
            assert!(!covers(text), "{text}");
        }
    }

    #[test]
    fn a_jwt_is_revoked_by_its_name_or_with_all_that_its_bearer_had_before() {
        let known = Known::default();
        let jwt = |subject: &str, jti: Option<&str>, issued| JwtIdentity {
            jti: jti.map(str::to_owned),
            subject: subject.to_owned(),
            issued,
        };
        let revoke = |id: String, issued_before| Revocation {
            id,
            jti: None,
            subject: None,
            issued_before,
            revision: 1,
        };
        known.revoke(revoke(Revocation::id_of_jti("one"), None));
        known.revoke(revoke(Revocation::id_of_subject("ada"), Some(100)));
        assert!(known.is_revoked(&jwt("bob", Some("one"), Some(500))));
        assert!(known.is_revoked(&jwt("ada", Some("two"), Some(99))));
        assert!(known.is_revoked(&jwt("ada", None, None)));
        assert!(!known.is_revoked(&jwt("ada", None, Some(100))));
        assert!(!known.is_revoked(&jwt("bob", Some("two"), None)));
        assert!(!known.is_revoked(&jwt("one", None, None)));
    }

    #[test]
    fn an_older_revision_of_a_token_never_brings_it_back() {
        let known = Known::default();
        let record = |revision, revoked| TokenRecord {
            id: "1".to_owned(),
            name: "n".to_owned(),
            digest: super::super::secret::Digest::of("x"),
            grants: Vec::new(),
            expires: None,
            revoked,
            revision,
        };
        known.put_token(record(2, Some(5)));
        known.put_token(record(1, None));
        known.replace(vec![record(1, None)], Vec::new());
        assert_eq!(known.token("1").unwrap().revoked, Some(5));
        known.replace(Vec::new(), Vec::new());
        assert!(
            known.token("1").is_some(),
            "it was made after the tables were read"
        );
        let other = TokenRecord {
            id: "2".to_owned(),
            ..record(3, None)
        };
        known.replace(vec![other], Vec::new());
        assert!(known.token("1").is_none());
    }
}
