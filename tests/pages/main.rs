//! The pages in a real browser (Debian's Chromium, headless) over a real stack.
//!
//! Screenshots for people to look at are kept in `target/tmp/pages`.

#[cfg(test)]
mod browser;

#[cfg(test)]
mod away;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod login;
#[cfg(test)]
mod register;
