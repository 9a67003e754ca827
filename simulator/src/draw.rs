//! Chance that is the same in every run with the same seed: pure.

/// A number from 0 (included) to 1 (excluded) that depends on `seed` and `place` alone. Written out (SplitMix64)
/// because the generators of libraries may answer differently in their next version.
pub(crate) fn draw(seed: u64, place: [u64; 2]) -> f64 {
    let mut state = seed;
    for number in place {
        state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(mix(number)));
    }
    // The 53 bits that a double has.
    (state >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn draws_are_even_and_repeatable() {
        let draws: Vec<f64> = (0..10_000).map(|index| draw(7, [1, index])).collect();
        assert!(draws.iter().all(|one| (0.0..1.0).contains(one)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let below = draws.iter().filter(|one| **one < 0.1).count();
        assert!((800..1200).contains(&below), "{below}");
        assert_eq!(draw(7, [1, 3]), draws[3]);
        assert_ne!(draw(8, [1, 3]), draws[3]);
        assert_ne!(draw(7, [2, 3]), draws[3]);
    }
}
