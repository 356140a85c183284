//! A terminal that is painted over and left as it was found.

use std::fmt::Write;

use anyhow::Result;
use console::Term;

use super::table;

const TO_OTHER_SCREEN: &str = "\x1b[?1049h\x1b[?25l";
const BACK: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// The terminal's other screen, for as long as this lives.
pub(super) struct Screen(Term);

impl Screen {
    pub(super) fn open(terminal: Term) -> Result<Self> {
        terminal.write_str(TO_OTHER_SCREEN)?;
        Ok(Self(terminal))
    }

    /// Paints services, batteries and a remark; what does not fit is counted.
    pub(super) fn paint(&mut self, head: &str, lines: &[Vec<String>], remark: &str) -> Result<()> {
        let (height, width) = self.0.size();
        let picture = picture(head, lines, remark, (height.into(), width.into()));
        self.0.write_str(&picture)?;
        self.0.flush()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing is left to tell where the terminal is gone.
        let _gone = self.0.write_str(BACK);
    }
}

fn picture(
    head: &str,
    lines: &[Vec<String>],
    remark: &str,
    (height, width): (usize, usize),
) -> String {
    let table = table::text(lines);
    let all: Vec<&str> = head.lines().chain(table.lines()).collect();
    let room = height.saturating_sub(1);
    let hidden = all.len().saturating_sub(room);
    let mut picture = String::from(HOME);
    for line in all.iter().take(room) {
        let cut: String = line.chars().take(width).collect();
        picture += &cut;
        picture += CLEAR_LINE;
        picture += "\r\n";
    }
    if hidden > 0 {
        let _always_works = write!(picture, "{hidden} more  ");
    }
    picture.extend(remark.chars().take(width.saturating_sub(16)));
    picture += CLEAR_REST;
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let lines: Vec<Vec<String>> = (0..10).map(|n| vec![format!("battery-{n}")]).collect();
        let picture = picture("head\n", &lines, "away", (5, 8));
        assert_eq!(picture.matches("\r\n").count(), 4);
        assert!(picture.contains("7 more"), "{picture}");
        assert!(!picture.contains("battery-0"), "{picture}");
    }
}
