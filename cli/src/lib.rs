//! Command `rovicli`, and what of it is of use elsewhere: the upload client that others can learn
//! from ([`upload_client`]) and the simulated cell of the demo, tests and benches ([`simulation`]).

pub mod bus_credentials;
pub mod certificates;
pub mod commands;
pub mod credentials;
pub mod fake;
pub mod first_start;
pub mod hub;
pub mod naming;
pub mod open_files;
pub mod pace;
pub mod simulation;
pub mod stack;
pub mod upload_client;
