//! `rovicli estimator` over files, as a user runs it.

#[cfg(test)]
mod files;
