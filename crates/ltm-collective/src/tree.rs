//! The order in which numbers are summed, whoever has them. Knows no process.
//!
//! Floating-point sums depend on their order. Here the sum of `n = 2^a · odd` terms is a binary tree over `2^a` groups,
//! each of which is summed term by term. If `2^b` processes share the terms, `b <= a`, each has a whole subtree, and the
//! sum of the processes' sums is the upper part of the same tree: the same bits as in one process.

/// How many times the last two partial sums are added after term `index` of `terms` became the last partial sum.
///
/// Beginning with none, this leaves one partial sum after the last term: `+` is applied `terms - 1` times.
///
/// ```
/// # use ltm_collective::tree::additions_after;
/// let after: Vec<_> = (0..6).map(|index| additions_after(index, 6)).collect();
/// // ((0 + 1) + 2) + ((3 + 4) + 5)
/// assert_eq!(after, [0, 1, 1, 0, 1, 2]);
/// ```
pub fn additions_after(index: usize, terms: usize) -> usize {
    let group = terms >> terms.trailing_zeros();
    let (number, place) = (index / group, index % group);
    let within = usize::from(place > 0);
    let between = if place + 1 == group { number.trailing_ones() as usize } else { 0 };
    within + between
}

/// The largest number of partial sums at any time, with that of the term that comes next.
pub fn depth(terms: usize) -> usize {
    let (mut held, mut most) = (0, 0);
    for index in 0..terms {
        held += 1;
        most = most.max(held);
        held -= additions_after(index, terms);
    }
    most
}

/// The sum of the terms in this order, by `add`; `None` of no terms.
pub fn sum<T>(
    terms: impl ExactSizeIterator<Item = T>,
    mut add: impl FnMut(&mut T, T),
) -> Option<T> {
    let n = terms.len();
    let mut partial: Vec<T> = Vec::new();
    for (index, term) in terms.enumerate() {
        partial.push(term);
        for _ in 0..additions_after(index, n) {
            let last = partial.pop().expect("as many terms as additions, and one");
            add(partial.last_mut().expect("as above"), last);
        }
    }
    partial.pop()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total(terms: &[f32]) -> f32 {
        sum(terms.iter().copied(), |a, b| *a += b).expect("there are terms")
    }

    #[test]
    fn the_order_is_a_tree_over_groups() {
        let text = |n: usize| {
            let terms: Vec<_> = (0..n).map(|i| i.to_string()).collect();
            sum(terms.into_iter(), |a, b| *a = format!("({a}{b})")).unwrap_or_default()
        };
        let expected =
            ["", "0", "(01)", "((01)2)", "((01)(23))", "((((01)2)3)4)", "(((01)2)((34)5))"];
        for (n, expected) in expected.into_iter().enumerate() {
            assert_eq!(text(n), expected);
        }
        assert_eq!(text(8), "(((01)(23))((45)(67)))");
        assert_eq!([1, 2, 3, 4, 6, 8].map(depth), [1, 2, 2, 3, 3, 4]);
    }

    proptest! {
        /// What the processes' sums add up to is the sum of one process, to the bit, for powers of two.
        #[test]
        fn a_power_of_two_of_parts_sums_as_one(
            doublings in 0_u32..4, each in 1_usize..7, numbers in prop::collection::vec(-1e3_f32..1e3, 64),
        ) {
            let parts = 1 << doublings;
            let terms = &numbers[..parts * each];
            let sums: Vec<f32> = terms.chunks(each).map(total).collect();
            prop_assert_eq!(total(&sums).to_bits(), total(terms).to_bits());
        }
    }
}
