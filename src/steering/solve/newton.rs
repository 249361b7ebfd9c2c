//! Linear algebra of a step: a symmetric system of as many unknowns as regions.

use super::rows::REGIONS;

/// Solves A·x = b for a symmetric positive definite A of `n` rows, row-major with `n` columns, by Cholesky
/// factorisation. A is overwritten; only what lies on and below its diagonal is read. `None` when A is not positive definite as far as
/// rounding can tell.
pub(super) fn solve(a: &mut [f64], b: &[f64], n: usize) -> Option<[f64; REGIONS]> {
    for j in 0..n {
        let (above, rest) = a.split_at_mut(j * n);
        let row = &mut rest[..n];
        for k in 0..j {
            // Row j against the finished row k.
            let done = &above[k * n..][..n];
            let dot: f64 = row[..k].iter().zip(&done[..k]).map(|(x, y)| x * y).sum();
            row[k] = (row[k] - dot) / done[k];
        }
        let square: f64 = row[..j].iter().map(|x| x * x).sum();
        let pivot = row[j] - square;
        // Also of what is not a number.
        if !(pivot > row[j] * 1e-13 && pivot.is_finite()) {
            return None;
        }
        row[j] = pivot.sqrt();
    }
    let mut x = [0.0; REGIONS];
    for j in 0..n {
        let row = &a[j * n..][..n];
        let dot: f64 = row[..j].iter().zip(&x[..j]).map(|(l, y)| l * y).sum();
        x[j] = (b[j] - dot) / row[j];
    }
    for j in (0..n).rev() {
        x[j] /= a[j * n + j];
        for k in 0..j {
            x[k] -= a[j * n + k] * x[j];
        }
    }
    x[..n].iter().all(|x| x.is_finite()).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_solution_solves(n in 1usize..12, seeds in prop::collection::vec(-1.0f64..1.0, 144), b in prop::collection::vec(-9.0f64..9.0, 12)) {
            let at = |i: usize, j: usize| (0..n).map(|k| seeds[i * 12 + k] * seeds[j * 12 + k]).sum::<f64>() + f64::from(u8::from(i == j));
            let mut a: Vec<f64> = (0..n * n).map(|at_| at(at_ / n, at_ % n)).collect();
            let x = solve(&mut a, &b, n).unwrap();
            for (i, b) in b.iter().enumerate().take(n) {
                let sum: f64 = (0..n).map(|j| at(i, j) * x[j]).sum();
                prop_assert!((sum - b).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn what_has_no_solution_gives_none() {
        assert!(solve(&mut [1.0, 1.0, 1.0, 1.0], &[1.0, 2.0], 2).is_none());
        assert!(solve(&mut [f64::NAN], &[1.0], 1).is_none());
        assert!(solve(&mut [-1.0], &[1.0], 1).is_none());
        assert!(solve(&mut [0.0], &[0.0], 1).is_none());
    }
}
