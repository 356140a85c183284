//! What is asked of history over HTTP; see `docs/PROTOCOL.md`.

pub(super) mod draw_picture;
pub(super) mod export_rows;
pub(super) mod histogram;
pub(super) mod question;
pub(super) mod read_rows;
pub(super) mod read_statistics;
pub(super) mod signals;

mod gaps;
mod open;
mod pairs;

use actix_web::{HttpResponse, HttpResponseBuilder};

use crate::store::source::Source;

/// Begins an answer that tells which rows the battery had when it was looked up.
fn answer_of(source: &Source) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header(("Rovi-Epoch", source.line.epoch))
        .insert_header(("Rovi-First-Seq", source.line.first_seq))
        .insert_header(("Rovi-Last-Seq", source.line.last_seq));
    response
}
