//! Charts for reports: lines over a common axis, one panel below the other, as SVG or PNG.
//!
//! Drawing needs no display, no fonts of the system and no files; [`Folder`] keeps the newest
//! pictures as files.

mod chart;
mod draw;
mod folder;
mod look;
mod words;

pub use self::{
    chart::{Chart, Line, Panel, Point},
    draw::{DrawError, png, svg},
    folder::{Folder, FolderError},
    look::{Look, Size, SizeError, Theme, time_unit},
    words::{estimate_label, estimate_rank},
};
