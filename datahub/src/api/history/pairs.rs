//! The fields of a question, some of which may stand more than once.

use std::str::FromStr;

use actix_web::HttpRequest;
use rovi_common::http::Problem;
use url::form_urlencoded;

/// Fields that nobody has taken yet.
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Reads the query of a request.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let pairs = form_urlencoded::parse(request.query_string().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// Takes a field that may stand once.
    pub(super) fn take(&mut self, field: &str) -> Result<Option<String>, Problem> {
        let mut found = self.take_all(field).into_iter();
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(Problem::bad_request(format!("{field} stands twice")).at(field)),
        }
    }

    /// Takes a field wherever it stands.
    pub(super) fn take_all(&mut self, field: &str) -> Vec<String> {
        let found = self.0.extract_if(.., |(name, _)| name == field);
        found.map(|(_, value)| value).collect()
    }

    /// Takes a number.
    pub(super) fn number<T: FromStr>(&mut self, field: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.take(field)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_no_number| {
            let detail = format!("{field}={text} is not a whole number that fits");
            Problem::bad_request(detail).at(field)
        })
    }

    /// Refuses what nobody took.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((field, _)) => {
                let detail = format!(
                    "the query is wrong: unknown field `{field}`; /docs/ lists those there are"
                );
                Err(Problem::bad_request(detail).at(field.clone()))
            }
        }
    }
}
