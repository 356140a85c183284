//! How a picture looks.

use plotters::style::RGBColor;

/// The smallest and the largest side, pixels.
const SIDES: std::ops::RangeInclusive<u32> = 200..=4000;

/// Width and height in pixels, each from 200 to 4,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// A side that no picture can have.
#[derive(Debug, thiserror::Error)]
#[error("{side}={pixels} is outside {} to {}", SIDES.start(), SIDES.end())]
pub struct SizeError {
    /// Which side.
    pub side: &'static str,
    pixels: u32,
}

impl Size {
    /// Makes a size.
    ///
    /// # Errors
    /// A side is too small or too large.
    pub fn new(width: u32, height: u32) -> Result<Self, SizeError> {
        for (side, pixels) in [("width", width), ("height", height)] {
            if !SIDES.contains(&pixels) {
                return Err(SizeError { side, pixels });
            }
        }
        Ok(Self { width, height })
    }

    /// Returns the width in pixels.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Returns the height in pixels.
    pub fn height(self) -> u32 {
        self.height
    }
}

impl Default for Size {
    fn default() -> Self {
        Self {
            width: 1000,
            height: 700,
        }
    }
}

/// Chooses the unit that suits a span of time: its name and its length, both in terms of seconds.
pub fn time_unit(most_seconds: f64) -> (&'static str, f64) {
    match most_seconds {
        most if most > 10.0 * 86_400.0 => ("d", 86_400.0),
        most if most > 3.0 * 3600.0 => ("h", 3600.0),
        _ => ("s", 1.0),
    }
}

/// Colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark on white, as on paper.
    #[default]
    Light,
    /// Light on near black, as on screens at night.
    Dark,
}

/// Size and colours together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Size.
    pub size: Size,
    /// Colours.
    pub theme: Theme,
}

/// The colours of a theme.
pub(crate) struct Colours {
    pub(crate) ground: RGBColor,
    pub(crate) text: RGBColor,
    pub(crate) faint: RGBColor,
    pub(crate) grid: RGBColor,
    /// One for each panel in turn; told apart with any kind of sight (Okabe and Ito's palette).
    pub(crate) lines: [RGBColor; 6],
}

impl Theme {
    pub(crate) fn colours(self) -> Colours {
        match self {
            Self::Light => Colours {
                ground: RGBColor(255, 255, 255),
                text: RGBColor(28, 32, 38),
                faint: RGBColor(98, 106, 117),
                grid: RGBColor(228, 231, 235),
                lines: [
                    RGBColor(0, 114, 178),
                    RGBColor(213, 94, 0),
                    RGBColor(0, 158, 115),
                    RGBColor(204, 121, 167),
                    RGBColor(150, 110, 0),
                    RGBColor(86, 130, 190),
                ],
            },
            Self::Dark => Colours {
                ground: RGBColor(19, 22, 27),
                text: RGBColor(226, 230, 236),
                faint: RGBColor(146, 154, 166),
                grid: RGBColor(46, 52, 61),
                lines: [
                    RGBColor(86, 180, 233),
                    RGBColor(230, 159, 0),
                    RGBColor(64, 196, 152),
                    RGBColor(222, 150, 190),
                    RGBColor(240, 228, 66),
                    RGBColor(150, 190, 240),
                ],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_outside_the_limits_names_the_side_and_the_limits() {
        let error = Size::new(1000, 5000).unwrap_err().to_string();
        assert_eq!(error, "height=5000 is outside 200 to 4000");
        assert!(Size::new(199, 700).is_err());
        assert!(Size::new(200, 4000).is_ok());
    }
}
