//! Estimators that are Python scripts, each in a confined process of its own.
//!
//! Reading order: [`Settings`] and [`Python`] say which interpreter runs scripts and how; a [`Script`] is checked text
//! and files; a [`Session`] drives one script in its process (`driver.py` is the other end); [`sandbox`] is what that
//! process may do. Everything here blocks: asynchronous callers use a blocking thread.
//!
//! A script can cost its caller only the time limits of [`Limits`]: it may loop, crash, print, or fill its folder and
//! its memory. What is not promised: protection against a defect of the kernel, and secrecy of which files exist.

mod settings;

mod interpreter;
mod nursery;
mod python;
mod script;

mod process;
mod session;
mod wire;

pub mod sandbox;

pub use interpreter::Interpreter;
pub use process::{Cancel, ProcessError};
pub use python::Python;
pub use script::{
    MAX_DEFINITION_BYTES, MAX_FILE_NAME_BYTES, Script, ScriptError, ScriptFile, is_script,
};
pub use session::{
    Belief, MAX_STATE_BYTES, Outcome, ROWS_AT_ONCE, Saved, Session, SessionError, Start, Taken,
};
pub use settings::{Limits, Sandbox, Settings, Unavailable};
