//! Checking a script before it is registered: it is loaded once, confined as it will run.

use actix_web::{http::StatusCode, web};
use rovi_common::{
    files::{FileRef, Files},
    http::Problem,
};
use rovi_python::{Cancel, Script, ScriptFile, Session, SessionError, Start, Unavailable};

use crate::fleet::Shared;

/// What a script told when it was loaded.
pub(super) struct Checked {
    /// Names of its states; empty where it first wants a history.
    pub(super) states: Vec<String>,
    /// Its files, which are in the object store now.
    pub(super) files: Vec<FileRef>,
}

/// Loads a script and puts its files where every twin finds them.
///
/// # Errors
/// 400 that names the field at fault, 501 where scripts cannot be run, 503 where the bus is away.
pub(super) async fn check(
    shared: &Shared,
    definition: &str,
    files: Vec<ScriptFile>,
    required_time: f64,
) -> Result<Checked, Problem> {
    let script = Script::new(definition, files, required_time)
        .map_err(|error| Problem::bad_request(error).at("files"))?;
    let place = shared.script_checks.acquire().await;
    let python = std::sync::Arc::clone(&shared.python);
    let loaded = web::block(move || {
        let session = Session::start(&python, &script, Start::default(), Cancel::default())?;
        Ok((session.state_names().to_vec(), script))
    });
    let loaded = loaded.await.map_err(|error| Problem::internal(&error))?;
    drop(place);
    let (states, script) = loaded.map_err(|error| refused(&error))?;
    let files = keep(shared, script.files()).await?;
    Ok(Checked { states, files })
}

async fn keep(shared: &Shared, files: &[ScriptFile]) -> Result<Vec<FileRef>, Problem> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let kept = async {
        let store = Files::open(&shared.jetstream, &shared.settings.bus).await?;
        let mut kept = Vec::with_capacity(files.len());
        for file in files {
            store.put(&file.content).await?;
            kept.push(FileRef::new(file.name.clone(), &file.content));
        }
        Ok(kept)
    };
    kept.await
        .map_err(|error: rovi_common::files::FilesError| Problem::unavailable(error.to_string()))
}

fn refused(error: &SessionError) -> Problem {
    match error {
        SessionError::Unavailable(Unavailable::Process(_)) => {
            Problem::unavailable(error.to_string())
        }
        SessionError::Unavailable(_) => {
            Problem::new(StatusCode::NOT_IMPLEMENTED, error.to_string()).at("definition")
        }
        SessionError::Raised { .. } | SessionError::Process(_) => {
            Problem::bad_request(error).at("definition")
        }
    }
}
