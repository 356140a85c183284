//! The body of a file, on the disk: libhdf5 reads files only, and memory does not grow with them.

use std::time::Duration;

use actix_web::{
    HttpMessage, HttpRequest,
    http::{StatusCode, header::ContentLength},
    web,
};
use futures_util::StreamExt;
use rovi_common::http::Problem;
use tempfile::TempPath;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{config::Settings, upload::post::broke_off};

/// Writes the body into a temporary file, which is gone with what is returned.
///
/// # Errors
/// 413 beyond `file_bytes`, 400 where the body broke off, 503 where the disk is full.
pub(super) async fn receive(
    request: &HttpRequest,
    mut payload: web::Payload,
    settings: &Settings,
) -> Result<TempPath, Problem> {
    let most = settings.file_bytes;
    let announced = request.get_header::<ContentLength>();
    if announced.is_some_and(|length| *length as u64 > most) {
        return Err(too_large(most));
    }
    let file = tempfile::Builder::new().prefix("rovi-upload-").tempfile();
    let (file, path) = file.map_err(|error| no_disk(&error))?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let mut bytes = 0_u64;
    while let Some(chunk) = next(&mut payload, settings.idle_timeout).await? {
        bytes += chunk.len() as u64;
        if bytes > most {
            return Err(too_large(most));
        }
        let written = file.write_all(&chunk).await;
        written.map_err(|error| no_disk(&error))?;
    }
    file.flush().await.map_err(|error| no_disk(&error))?;
    Ok(path)
}

async fn next(payload: &mut web::Payload, idle: Duration) -> Result<Option<web::Bytes>, Problem> {
    let next = timeout(idle, payload.next()).await;
    let next =
        next.map_err(|_silent| broke_off(format!("nothing came for {} s", idle.as_secs())))?;
    next.transpose().map_err(broke_off)
}

fn too_large(most: u64) -> Problem {
    let detail = format!(
        "the file has more than {most} bytes (setting `file_bytes`); \
         `rovicli stream` sends files of any size"
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn no_disk(error: &std::io::Error) -> Problem {
    Problem::unavailable(format!("the hub cannot keep the file on its disk: {error}"))
}
