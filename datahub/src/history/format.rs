//! The forms in which history is answered, and which one a request asks for.

use actix_web::HttpRequest;
use actix_web::http::{
    StatusCode,
    header::{self, Accept, Header},
};
use rovi_common::http::Problem;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Of a page one object with a list for each column, of an export an array of rows.
    Json,
    /// One object a row, one row a line.
    Ndjson,
    /// A line of names, then one a row.
    Csv,
    /// Row frames as on the bus, one after another.
    Msgpack,
    /// Apache Parquet.
    Parquet,
    /// battdat's HDF5.
    Hdf5,
}

impl Format {
    /// The forms of a page; the first is what is answered where anything will do.
    pub(crate) const PAGES: &[Self] = &[Self::Json, Self::Csv, Self::Msgpack, Self::Ndjson];
    /// The forms of an export.
    pub(crate) const EXPORTS: &[Self] = &[
        Self::Csv,
        Self::Ndjson,
        Self::Json,
        Self::Msgpack,
        Self::Parquet,
        Self::Hdf5,
    ];

    /// Returns the name in `format=`, which is the ending of a file's name, too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Msgpack => "msgpack",
            Self::Parquet => "parquet",
            Self::Hdf5 => "h5",
        }
    }

    /// Returns the value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Msgpack => "application/msgpack",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Hdf5 => "application/x-hdf5",
        }
    }

    fn media_type(self) -> &'static str {
        let kind = self.content_type();
        kind.split_once(';').map_or(kind, |(kind, _)| kind)
    }

    /// Chooses among `offered`: by `format=` where it is given, else by `Accept` and its q-values.
    ///
    /// # Errors
    /// 400 for an unknown `format`, 406 where nothing that is accepted is offered.
    pub(crate) fn choose(
        offered: &[Self],
        named: Option<&str>,
        request: &HttpRequest,
    ) -> Result<Self, Problem> {
        let list = |part: fn(Self) -> &'static str| {
            offered
                .iter()
                .copied()
                .map(part)
                .collect::<Vec<_>>()
                .join(", ")
        };
        if let Some(named) = named {
            let found = offered.iter().find(|format| format.name() == named);
            return found.copied().ok_or_else(|| {
                let detail = format!(
                    "format={named} is not known here; there are {}",
                    list(Self::name)
                );
                Problem::bad_request(detail).at("format")
            });
        }
        if !request.headers().contains_key(header::ACCEPT) {
            return offered
                .first()
                .copied()
                .ok_or_else(|| Problem::not_found("there are no forms"));
        }
        let accept = Accept::parse(request).map_err(|error| {
            Problem::bad_request(format!("the header cannot be read: {error}")).at("Accept")
        })?;
        best(&accept, offered).ok_or_else(|| {
            let detail = format!(
                "nothing that `Accept` allows is offered; there are {} (or say format={})",
                list(Self::media_type),
                list(Self::name)
            );
            Problem::new(StatusCode::NOT_ACCEPTABLE, detail).at("Accept")
        })
    }
}

/// Returns the offer with the highest q, the earlier one of equals. For each offer the most
/// specific range decides, so that `text/csv;q=0` excludes it beside `*/*`.
fn best(accept: &Accept, offered: &[Format]) -> Option<Format> {
    let quality = |format: Format| {
        let (kind, subtype) = format.media_type().split_once('/')?;
        let matching = accept.iter().filter_map(|range| {
            let specific = match (range.item.type_().as_str(), range.item.subtype().as_str()) {
                ("*", _) => 0,
                (of, "*") if of == kind => 1,
                (of, sub) if of == kind && range_subtype(&range.item, sub) == subtype => 2,
                _ => return None,
            };
            Some((specific, range.quality))
        });
        matching
            .max_by_key(|(specific, _)| *specific)
            .map(|(_, quality)| quality)
    };
    let mut best: Option<(Format, header::Quality)> = None;
    for &format in offered {
        let Some(quality) = quality(format).filter(|quality| *quality > header::Quality::ZERO)
        else {
            continue;
        };
        if best.is_none_or(|(_, known)| quality > known) {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format)
}

/// Returns the subtype with its suffix, as in `geo+json`.
fn range_subtype(range: &mime::Mime, subtype: &str) -> String {
    match range.suffix() {
        Some(suffix) => format!("{subtype}+{suffix}"),
        None => subtype.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn page(accept: &str) -> Result<Format, StatusCode> {
        let request = TestRequest::get()
            .insert_header((header::ACCEPT, accept))
            .to_http_request();
        Format::choose(Format::PAGES, None, &request).map_err(|problem| problem.status)
    }

    #[test]
    fn accept_is_read_with_its_q_values() {
        assert_eq!(page("*/*"), Ok(Format::Json));
        assert_eq!(page("text/html, */*;q=0.1"), Ok(Format::Json));
        assert_eq!(page("application/json;q=0.5, text/csv"), Ok(Format::Csv));
        assert_eq!(
            page("text/csv;q=0.2, application/msgpack;q=0.9"),
            Ok(Format::Msgpack)
        );
        assert_eq!(page("text/*"), Ok(Format::Csv));
        assert_eq!(page("application/json;q=0, */*"), Ok(Format::Csv));
        assert_eq!(page("application/xml"), Err(StatusCode::NOT_ACCEPTABLE));
        let request = TestRequest::get().to_http_request();
        assert_eq!(
            Format::choose(Format::PAGES, None, &request).unwrap(),
            Format::Json
        );
    }

    #[test]
    fn a_named_format_wins_over_accept() {
        let request = TestRequest::get()
            .insert_header((header::ACCEPT, "text/csv"))
            .to_http_request();
        let named = |name| Format::choose(Format::EXPORTS, Some(name), &request);
        assert_eq!(named("h5").unwrap(), Format::Hdf5);
        let problem = named("xml").unwrap_err();
        assert!(
            problem
                .detail
                .contains("csv, ndjson, json, msgpack, parquet, h5"),
            "{}",
            problem.detail
        );
    }
}
