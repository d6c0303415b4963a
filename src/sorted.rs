//! Sorting where speed does not matter: one copy of the code for all types.
//!
//! The standard library makes a copy of its sort for each type and each order, five to eight
//! KiB of program apiece. What runs once for a request, a reload or a start is sorted here;
//! what runs for each message or commit is not.

use alloc::vec::Vec;
use core::cmp::Ordering;

/// Sorts, ascending; equal items keep their order. Allocates one word an item unless `items`
/// are in order already.
pub(crate) fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// As [`sort()`], in the order of `compare`.
pub(crate) fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut order = order(items.len(), &|a, b| match (items.get(a), items.get(b)) {
        (Some(a), Some(b)) => compare(a, b),
        _ => Ordering::Equal,
    });
    for start in 0..order.len() {
        // Around one cycle: each swap brings one item home.
        let mut at = start;
        while let Some(slot) = order.get_mut(at) {
            let next = core::mem::replace(slot, at);
            if next == start {
                break;
            }
            items.swap(at, next);
            at = next;
        }
    }
}

/// As [`sort_by`], by the key that `key` makes of an item, each time it is compared.
pub(crate) fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}

/// Which item belongs in which place; empty when all are where they belong.
fn order(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    if (1..len).all(|at| compare(at - 1, at) != Ordering::Greater) {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_unstable_by(|&a, &b| compare(a, b).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(items: Vec<(u8, u32)>) {
            let (mut ours, mut theirs) = (items.clone(), items);
            sort_by_key(&mut ours, |item| item.0);
            theirs.sort_by_key(|item| item.0);
            prop_assert_eq!(&ours, &theirs);
            sort(&mut ours);
            theirs.sort_unstable();
            prop_assert_eq!(ours, theirs);
        }
    }
}
