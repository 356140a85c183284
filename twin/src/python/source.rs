//! What a registered script needs to run: its text, its files from the object store, the battery's metadata.

use std::sync::{Arc, OnceLock};

use rovi_common::{
    files::{FileRef, Files, FilesError},
    name::BatteryName,
    registration::Registration,
};
use rovi_python::{Python, Script, ScriptFile};
use tokio::sync::OwnedSemaphorePermit;

use crate::{fleet::Shared, reproduce::ScriptParts, runner::Failure};

/// A registered script, ready once it is prepared.
#[derive(Debug)]
pub struct ScriptSource {
    battery: BatteryName,
    definition: String,
    required_time: f64,
    files: Vec<FileRef>,
    ready: OnceLock<Ready>,
}

/// A script with everything it needs.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) python: Arc<Python>,
    pub(super) script: Script,
    pub(super) metadata: Option<serde_json::Value>,
    /// One of the places for scripts, in the service.
    _place: Option<OwnedSemaphorePermit>,
}

impl ScriptSource {
    /// Takes the script of a registration.
    pub fn of(registration: &Registration) -> Self {
        Self {
            battery: registration.battery.clone(),
            definition: registration.definition.to_string(),
            required_time: registration.required_time,
            files: registration.files.clone(),
            ready: OnceLock::new(),
        }
    }

    /// Takes the script of a registration with all that it needs.
    ///
    /// # Errors
    /// A file is refused.
    pub fn prepared(registration: &Registration, parts: ScriptParts) -> Result<Self, Failure> {
        let source = Self::of(registration);
        let script = Script::new(
            source.definition.as_str(),
            parts.files,
            source.required_time,
        )
        .map_err(|error| Failure::Other(error.to_string()))?;
        let ready = Ready {
            python: parts.python,
            script,
            metadata: parts.metadata.filter(|_| source.required_time > 0.0),
            _place: None,
        };
        // It was made just now.
        let _first = source.ready.set(ready);
        Ok(source)
    }

    /// Reads the files, and the metadata where an offline estimation wants them.
    ///
    /// # Errors
    /// Bus or hub are away, a file is missing or refused, or every place for scripts is taken.
    pub async fn prepare(&self, shared: &Shared) -> Result<(), Failure> {
        if self.ready.get().is_some() {
            return Ok(());
        }
        let places = Arc::clone(&shared.scripts);
        let place = places.try_acquire_owned().map_err(|_none| {
            let most = shared.settings.python_estimators;
            Failure::Other(format!(
                "{most} scripts run already, which is the setting `python_estimators`; it waits"
            ))
        })?;
        let files = self.read_files(shared).await;
        let files = files.map_err(|error| Failure::Other(error.to_string()))?;
        let script = Script::new(self.definition.as_str(), files, self.required_time)
            .map_err(|error| Failure::Other(error.to_string()))?;
        let metadata = if self.required_time > 0.0 {
            let found = shared.hub.metadata(&self.battery).await;
            found
                .map_err(|error| Failure::Other(format!("the metadata cannot be read: {error}")))?
        } else {
            None
        };
        let ready = Ready {
            python: Arc::clone(&shared.python),
            script,
            metadata,
            _place: Some(place),
        };
        // One run prepares its script once.
        let _again = self.ready.set(ready);
        Ok(())
    }

    pub(super) fn ready(&self) -> Result<&Ready, Failure> {
        self.ready
            .get()
            .ok_or_else(|| Failure::Other("the script is not prepared".to_owned()))
    }

    async fn read_files(&self, shared: &Shared) -> Result<Vec<ScriptFile>, FilesError> {
        if self.files.is_empty() {
            return Ok(Vec::new());
        }
        let store = Files::open(&shared.jetstream, &shared.settings.bus).await?;
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            files.push(ScriptFile {
                name: file.name.clone(),
                content: store.get(file).await?.into(),
            });
        }
        Ok(files)
    }
}
