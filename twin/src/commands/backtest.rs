//! Backtests: asked for, shown, ended, and their candidates promoted.

use std::{sync::Arc, time::Duration};

use rovi_common::{
    files::FileRef,
    http::Problem,
    name::{BatteryName, EstimatorName},
    registration::{Action, Register, Registration},
};
use rovi_python::ScriptFile;
use tokio::time::{Instant, sleep};

use super::control::{Stand, control, unfit};
use crate::{
    api::register_estimator::{check, check_size, commit},
    backtest::{self, Asked, Backtest, Candidate, State, StoreError},
    fleet::Fleet,
};

/// How long a promotion waits for its candidate to catch up.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The first and the last row of a backtest; else all.
pub(crate) type Range = (Option<i64>, Option<i64>);

/// Starts a backtest of a definition that was sent along.
///
/// # Errors
/// As of a registration, and as of [`backtest::start`].
pub(crate) async fn of_definition(
    fleet: &Arc<Fleet>,
    (mut candidate, is_named): (Register, bool),
    files: Vec<ScriptFile>,
    seq: Range,
) -> Result<Backtest, Problem> {
    check_size(&candidate.definition)?;
    let _notes = check(fleet.shared(), &mut candidate, files).await?;
    let asked = Asked {
        candidate,
        revision: 0,
        is_named,
        seq,
    };
    backtest::start(fleet, asked).await
}

/// Starts a backtest of a registered estimator.
///
/// # Errors
/// 404: there is none of this name. Else as of [`backtest::start`].
pub(crate) async fn of_registered(
    fleet: &Arc<Fleet>,
    (battery, estimator): (&BatteryName, &EstimatorName),
    seq: Range,
) -> Result<Backtest, Problem> {
    let found = fleet.find(battery);
    let found = found.and_then(|known| known.registration(estimator));
    let found = found.ok_or_else(|| {
        let detail = format!("battery `{battery}` has no estimator `{estimator}`");
        Problem::not_found(detail).at("estimator")
    })?;
    let asked = Asked {
        revision: found.revision,
        candidate: register_of(&found),
        is_named: true,
        seq,
    };
    backtest::start(fleet, asked).await
}

fn register_of(registration: &Registration) -> Register {
    Register {
        battery: registration.battery.clone(),
        estimator: registration.estimator.clone(),
        definition: registration.definition.to_string(),
        valid_from: registration.valid_from,
        required_time: registration.required_time,
        files: registration.files.clone(),
    }
}

/// Shows a backtest.
///
/// # Errors
/// 404 where there is none, 503 where the bus is away.
pub(crate) async fn show(
    fleet: &Fleet,
    battery: &BatteryName,
    id: &str,
) -> Result<Backtest, Problem> {
    find(fleet, battery, id).await.map(|(backtest, _)| backtest)
}

/// Lists the backtests of a battery, the newest first.
///
/// # Errors
/// 503 where the bus is away.
pub(crate) async fn list(fleet: &Fleet, battery: &BatteryName) -> Result<Vec<Backtest>, Problem> {
    let listed = fleet.shared().backtests.list(Some(battery)).await;
    listed.map_err(|error| away(&error))
}

/// Ends a backtest that runs, wherever it does; one that ended is forgotten. Returns how it stood.
///
/// # Errors
/// 404 where there is none, 503 where the bus is away.
pub(crate) async fn end(
    fleet: &Fleet,
    battery: &BatteryName,
    id: &str,
) -> Result<Backtest, Problem> {
    let backtests = &fleet.shared().backtests;
    loop {
        let (mut backtest, entry) = find(fleet, battery, id).await?;
        if backtest.state != State::Running {
            let forgotten = backtests.forget(battery, id).await;
            return forgotten.map(|()| backtest).map_err(|error| away(&error));
        }
        backtest.state = State::Cancelled;
        match backtests.write(&backtest, entry).await {
            Ok(_) => return Ok(backtest),
            // Its progress was told meanwhile.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(away(&error)),
        }
    }
}

/// Makes the candidate of a backtest champion: one that is not registered yet is, under `name`, and
/// promoted as soon as it has caught up.
///
/// # Errors
/// 404: there is no such backtest. 409: it is not done, or the candidate cannot be champion as
/// things stand; it stays registered where it was, so asking again goes on from there.
pub(crate) async fn promote(
    fleet: &Fleet,
    (battery, id): (&BatteryName, &str),
    name: Option<EstimatorName>,
) -> Result<Stand, Problem> {
    let (backtest, _) = find(fleet, battery, id).await?;
    if backtest.state != State::Done {
        let state = backtest.state.as_str();
        return Err(Problem::conflict(format!(
            "backtest {id} is {state}: only the candidate of one that is done is promoted"
        )));
    }
    let candidate = fleet.shared().backtests.candidate(battery, id).await;
    let candidate = candidate.map_err(|error| away(&error))?;
    let candidate = candidate.ok_or_else(|| no_backtest(battery, id))?;
    let estimator = if backtest.revision > 0 {
        still_registered(fleet, &backtest, candidate)?
    } else {
        let name = name.or(backtest.candidate).ok_or_else(|| {
            let detail = "the candidate was sent without a name: say under which it is registered";
            Problem::bad_request(detail).at("estimator")
        })?;
        register(fleet, candidate, name).await?
    };
    let deadline = Instant::now() + CATCH_UP_WITHIN;
    while unfit(fleet, battery, &estimator).is_some() && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
    control(fleet, battery.clone(), estimator, Action::Promote).await
}

/// Sees to it that a registered candidate is the one that was compared.
fn still_registered(
    fleet: &Fleet,
    backtest: &Backtest,
    candidate: Candidate,
) -> Result<EstimatorName, Problem> {
    let (battery, estimator) = (&backtest.battery, candidate.estimator);
    let known = fleet.find(battery);
    let known = known.and_then(|known| known.registration(&estimator));
    match known {
        // A reset starts the same definition anew.
        Some(known) if *known.definition == *candidate.definition => Ok(estimator),
        Some(_) => Err(Problem::conflict(format!(
            "estimator `{estimator}` of `{battery}` was replaced since backtest {}",
            backtest.id
        ))),
        None => Err(Problem::conflict(format!(
            "estimator `{estimator}` of `{battery}` was removed since backtest {}",
            backtest.id
        ))),
    }
}

/// Registers a candidate as a shadow, unless it is one already.
async fn register(
    fleet: &Fleet,
    mut candidate: Candidate,
    name: EstimatorName,
) -> Result<EstimatorName, Problem> {
    let known = fleet.find(&candidate.battery);
    let known = known.and_then(|known| known.registration(&name));
    candidate.estimator = name.clone();
    match known {
        Some(known) if register_of(&known) == candidate => return Ok(name),
        Some(_) => {
            let battery = &candidate.battery;
            return Err(Problem::conflict(format!(
                "`{battery}` has another estimator `{name}`, which would have to start anew: \
                 give the candidate a name of its own"
            ))
            .at("estimator"));
        }
        None => {}
    }
    commit(fleet, &candidate).await.map(|_| name)
}

/// Reads files that somebody put into the object store.
///
/// # Errors
/// 400 where one is missing or damaged, 503 where the bus is away.
pub(crate) async fn read_files(
    fleet: &Fleet,
    named: &[FileRef],
) -> Result<Vec<ScriptFile>, Problem> {
    use rovi_common::files::{Files, FilesError};
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let shared = fleet.shared();
    let read = async {
        let store = Files::open(&shared.jetstream, &shared.settings.bus).await?;
        let mut files = Vec::with_capacity(named.len());
        for file in named {
            files.push(ScriptFile {
                name: file.name.clone(),
                content: store.get(file).await?.into(),
            });
        }
        Ok(files)
    };
    read.await.map_err(|error: FilesError| match error {
        FilesError::Away(_) => Problem::unavailable(error),
        _ => Problem::bad_request(error).at("files"),
    })
}

async fn find(fleet: &Fleet, battery: &BatteryName, id: &str) -> Result<(Backtest, u64), Problem> {
    let is_id = !id.is_empty() && id.chars().all(|c| c.is_ascii_hexdigit());
    if !is_id {
        return Err(no_backtest(battery, id));
    }
    let found = fleet.shared().backtests.read(battery, id).await;
    found
        .map_err(|error| away(&error))?
        .ok_or_else(|| no_backtest(battery, id))
}

fn no_backtest(battery: &BatteryName, id: &str) -> Problem {
    Problem::not_found(format!("`{battery}` has no backtest {id}"))
}

fn away(error: &StoreError) -> Problem {
    Problem::unavailable(error)
}
