//! The room in which an unscented step works: one for each thread, lent for the length of a step, since thousands of
//! filters wait while one of them steps.

use std::cell::Cell;

/// Buffers of one step; nothing in them outlives it, and each is written before it is read.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) point: Vec<f64>,
    pub(super) centre: Vec<f64>,
    /// `[2n, n]`: evolved points, then their distances from the predicted mean.
    pub(super) points: Vec<f64>,
    pub(super) delta: Vec<f64>,
    /// `[4n]`: voltages of the state points, then of the process-noise points, less the centre's.
    pub(super) voltages: Vec<f64>,
    /// `[4n + 3, n + 1]`, for plain sums: every point with its voltage.
    pub(super) points_and_voltages: Vec<f64>,
    /// `Pxy`, `[n]`.
    pub(super) cross: Vec<f64>,
}

thread_local! {
    static ROOM: Cell<Option<Box<Workspace>>> = const { Cell::new(None) };
}

/// Does a step of `n` states in this thread's room.
#[inline]
pub(super) fn lend<T>((n, is_plain): (usize, bool), step: impl FnOnce(&mut Workspace) -> T) -> T {
    let mut room = ROOM.take().unwrap_or_default();
    room.fit(n, is_plain);
    let done = step(&mut room);
    ROOM.set(Some(room));
    done
}

impl Workspace {
    /// Makes every buffer as long as a step of `n` states needs it.
    #[inline]
    fn fit(&mut self, n: usize, is_plain: bool) {
        let all = if is_plain { (4 * n + 3) * (n + 1) } else { 0 };
        if self.centre.len() != n || self.points_and_voltages.len() != all {
            self.resize(n, all);
        }
    }

    #[cold]
    fn resize(&mut self, n: usize, all: usize) {
        for (buffer, length) in [
            (&mut self.point, n),
            (&mut self.centre, n),
            (&mut self.points, 2 * n * n),
            (&mut self.delta, n),
            (&mut self.voltages, 4 * n),
            (&mut self.points_and_voltages, all),
            (&mut self.cross, n),
        ] {
            buffer.resize(length, 0.0);
        }
    }
}
