//! How many partitions each twin should have.

use std::{cmp::Reverse, collections::BTreeMap};

/// Returns how many of `partitions` a twin should have, by what each living one has now.
///
/// All get the same, those with most one more where it does not come out even: so only what must
/// move moves, and every twin that sees the same comes to the same.
pub(super) fn share_of(own: &str, held: &BTreeMap<String, u32>, partitions: u32) -> u32 {
    let twins = u32::try_from(held.len()).unwrap_or(u32::MAX).max(1);
    let mut order: Vec<(Reverse<u32>, &str)> = held
        .iter()
        .map(|(name, held)| (Reverse(*held), name.as_str()))
        .collect();
    order.sort_unstable();
    let with_one_more = usize::try_from(partitions % twins).unwrap_or_default();
    let has_one_more = order
        .iter()
        .take(with_one_more)
        .any(|(_, name)| *name == own);
    partitions / twins + u32::from(has_one_more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(held: &[(&str, u32)], partitions: u32) -> Vec<u32> {
        let held: BTreeMap<String, u32> = held
            .iter()
            .map(|(name, held)| ((*name).to_owned(), *held))
            .collect();
        held.keys()
            .map(|name| share_of(name, &held, partitions))
            .collect()
    }

    #[test]
    fn a_lone_twin_has_all() {
        assert_eq!(shares(&[("a", 0)], 16), [16]);
    }

    #[test]
    fn a_twin_that_joins_gets_its_share_and_nothing_moves_twice() {
        assert_eq!(shares(&[("a", 16), ("b", 0)], 16), [8, 8]);
        assert_eq!(shares(&[("a", 8), ("b", 8), ("c", 0)], 16), [6, 5, 5]);
        assert_eq!(shares(&[("a", 5), ("b", 6), ("c", 5)], 16), [5, 6, 5]);
    }

    #[test]
    fn few_partitions_are_shared_one_each() {
        assert_eq!(shares(&[("a", 2), ("b", 2), ("c", 0)], 4), [2, 1, 1]);
        assert_eq!(shares(&[("a", 1), ("b", 0), ("c", 1)], 2), [1, 0, 1]);
    }

    #[test]
    fn shares_always_add_up_to_all_partitions() {
        for partitions in 1..40 {
            for twins in 1..10_u32 {
                let names: Vec<String> = (0..twins).map(|n| n.to_string()).collect();
                let held: Vec<(&str, u32)> = names
                    .iter()
                    .zip(0..)
                    .map(|(name, n): (_, u32)| (name.as_str(), n % 3))
                    .collect();
                assert_eq!(shares(&held, partitions).iter().sum::<u32>(), partitions);
            }
        }
    }
}
