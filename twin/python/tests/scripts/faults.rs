//! What scripts do wrong costs only themselves, and is told.

use std::{sync::atomic::Ordering, time::Duration};

use rovi_python::{
    Cancel, Limits, Outcome, ProcessError, Python, Saved, Session, SessionError, Settings, Start,
    Unavailable,
};

use crate::{PLAIN, python, rows, script, settings, start};

/// A script whose steps run this text.
fn stepping(body: &str) -> String {
    let body = body.replace('\n', "\n        ");
    format!(
        "{PLAIN}\nclass Faulty(Mean):\n    def step(self, inputs, outputs):\n        {body}\n        super().step(inputs, outputs)\nestimator = Faulty()\n"
    )
}

fn limited(change: impl FnOnce(&mut Limits)) -> Python {
    let mut settings = settings();
    change(&mut settings.limits);
    Python::new(settings).unwrap()
}

fn fails(python: &Python, body: &str) -> SessionError {
    let mut session = start(python, &stepping(body)).unwrap();
    session
        .take(&rows(&[0.0, 1.0]), &[0, 1], false)
        .unwrap_err()
}

#[test]
fn an_error_of_a_step_refuses_its_row_and_shows_where() {
    let python = python();
    let body = "if inputs.time == 1.0: raise ValueError('no such row')";
    let mut session = start(&python, &stepping(body)).unwrap();
    let taken = session
        .take(&rows(&[0.0, 1.0, 2.0]), &[0, 1, 2], false)
        .unwrap();
    assert_eq!(taken.outcomes[1], Outcome::Refused);
    assert!(matches!(taken.outcomes[2], Outcome::Stepped { .. }));
    let refusal = taken.refusal.unwrap();
    assert!(
        refusal.contains("estimator.py") && refusal.contains("no such row"),
        "{refusal}"
    );
    assert!(
        refusal.contains("raise ValueError"),
        "the line is shown: {refusal}"
    );
}

#[test]
fn a_script_that_cannot_be_loaded_says_why() {
    let python = python();
    for (definition, said) in [
        ("estimator = (", "SyntaxError"),
        (
            "import no_such_package",
            "No module named 'no_such_package'",
        ),
        ("x = 1", "neither a variable `estimator` nor the functions"),
        ("raise SystemExit(3)", "SystemExit"),
        ("estimator = 7", "state_names"),
    ] {
        let error = start(&python, definition).unwrap_err();
        assert!(matches!(error, SessionError::Raised { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn what_a_script_prints_reaches_no_frame() {
    let python = python();
    let body =
        "import os\nprint('x' * 1000000)\nos.write(1, b'y' * 1000000)\nos.write(2, b'the end')";
    let mut session = start(&python, &stepping(body)).unwrap();
    let taken = session
        .take(&rows(&[0.0, 1.0, 2.0]), &[0, 1, 2], false)
        .unwrap();
    assert!(matches!(taken.outcomes[2], Outcome::Stepped { .. }));
    assert!(session.printed().len() < 10_000);
}

#[test]
fn a_script_that_reads_its_input_takes_no_request_away() {
    let python = python();
    let body = "import sys\nassert sys.stdin.read() == ''";
    let mut session = start(&python, &stepping(body)).unwrap();
    let taken = session.take(&rows(&[0.0, 1.0]), &[0, 1], false).unwrap();
    assert_eq!(taken.refusal, None);
}

#[test]
fn a_script_that_never_ends_is_ended() {
    let python = limited(|limits| limits.batch_timeout = Duration::from_millis(200));
    let error = fails(&python, "while True: pass");
    assert!(
        matches!(error, SessionError::Process(ProcessError::Slow { .. })),
        "{error}"
    );
    let python = limited(|limits| limits.start_timeout = Duration::from_millis(200));
    let error = start(&python, "while True: pass").unwrap_err();
    assert!(error.to_string().contains("to load"), "{error}");
}

#[test]
fn a_script_that_prints_without_end_is_ended() {
    let python = limited(|limits| limits.batch_timeout = Duration::from_millis(200));
    let error = fails(&python, "while True: print('z' * 100000)");
    assert!(matches!(
        error,
        SessionError::Process(ProcessError::Slow { .. })
    ));
    assert!(error.to_string().len() < 10_000);
}

#[test]
fn a_process_that_dies_tells_how_and_what_it_printed_at_last() {
    let python = python();
    let error = fails(
        &python,
        "import os, sys\nprint('so long', flush=True)\nos._exit(7)",
    );
    let text = error.to_string();
    assert!(
        text.contains("exit status: 7") && text.contains("so long"),
        "{text}"
    );
    let error = fails(&python, "import ctypes\nctypes.string_at(0)");
    assert!(error.to_string().contains("signal: 11"), "{error}");
}

#[test]
fn a_process_that_dies_within_a_frame_is_noticed() {
    let python = python();
    let halfway = "import os\nfor fd in (3, 4, 5):\n    try: os.write(fd, b'\\0\\0\\1\\0half')\n    except OSError: pass\nos._exit(0)";
    let error = fails(&python, halfway);
    assert!(matches!(error, SessionError::Process(_)), "{error}");
}

#[test]
fn an_endless_allocation_ends_at_the_limit() {
    let python = limited(|limits| limits.memory_bytes = 256 << 20);
    let mut session = start(&python, &stepping("self.hoard = bytearray(1 << 40)")).unwrap();
    let taken = session.take(&rows(&[0.0, 1.0]), &[0, 1], false).unwrap();
    assert!(taken.refusal.unwrap().contains("MemoryError"));
    let hoarding = "self.hoard = []\nwhile True: self.hoard.append(bytearray(1 << 20))";
    let mut session = start(&python, &stepping(hoarding)).unwrap();
    let ended = session.take(&rows(&[0.0, 1.0]), &[0, 1], false);
    let is_bounded = ended.as_ref().is_ok_and(|taken| taken.refusal.is_some()) || ended.is_err();
    assert!(is_bounded, "{ended:?}");
}

#[test]
fn a_filled_folder_ends_the_script() {
    let python = limited(|limits| limits.folder_bytes = 1 << 20);
    let one = "open('large', 'wb').write(bytes(1 << 22))";
    let mut session = start(&python, &stepping(one)).unwrap();
    let taken = session.take(&rows(&[0.0, 1.0]), &[0, 1], false).unwrap();
    assert!(taken.refusal.unwrap().contains("File too large"));
    let many = "n = 0\nwhile True:\n    open(f'f{n}', 'wb').write(bytes(1 << 16))\n    n += 1";
    let error = fails(&python, many);
    assert!(
        matches!(
            error,
            SessionError::Process(ProcessError::FolderFull { .. })
        ),
        "{error}"
    );
}

#[test]
fn processor_time_is_limited() {
    let python = limited(|limits| limits.processor_time = Duration::from_secs(1));
    let error = fails(&python, "while True: pass");
    assert!(error.to_string().contains("signal"), "{error}");
}

#[test]
fn an_estimator_that_cannot_be_pickled_says_so_and_goes_on() {
    let python = python();
    let mut session = start(&python, &stepping("self.never = lambda: 0")).unwrap();
    session.take(&rows(&[0.0, 1.0]), &[0, 1], false).unwrap();
    let Saved::None(why) = session.save().unwrap() else {
        panic!("a lambda cannot be pickled");
    };
    assert!(why.contains("cannot be pickled"), "{why}");
    session.take(&rows(&[2.0]), &[0], false).unwrap();
}

#[test]
fn a_belief_of_the_wrong_size_is_refused() {
    let python = python();
    let growing = "self.get_covariance = lambda: [1.0] * (inputs.time > 0 and 2 or 1)";
    let mut session = start(&python, &stepping(growing)).unwrap();
    let taken = session.take(&rows(&[0.0, 1.0]), &[0, 1], false).unwrap();
    let refusal = taken.refusal.unwrap();
    assert!(refusal.contains("the covariance 2"), "{refusal}");
}

#[test]
fn a_session_is_broken_off_from_another_thread() {
    let python = python();
    let cancel = Cancel::default();
    let slow = script(&stepping("import time\ntime.sleep(1000)"));
    let mut session =
        Session::start(&python, &slow, Start::default(), Cancel::clone(&cancel)).unwrap();
    let waiting = std::thread::spawn(move || session.take(&rows(&[0.0, 1.0]), &[0, 1], false));
    cancel.store(true, Ordering::Relaxed);
    let error = waiting.join().unwrap().unwrap_err();
    assert!(
        matches!(error, SessionError::Process(ProcessError::Cancelled)),
        "{error}"
    );
}

#[test]
fn a_missing_interpreter_is_refused_with_what_to_do() {
    let python = Python::new(Settings {
        interpreter: "no-such-python".into(),
        ..settings()
    });
    let error = start(&python.unwrap(), PLAIN).unwrap_err();
    let is_expected = matches!(
        &error,
        SessionError::Unavailable(Unavailable::Interpreter { .. })
    );
    assert!(
        is_expected && error.to_string().contains("python.interpreter"),
        "{error}"
    );
}
