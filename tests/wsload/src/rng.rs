//! A small seeded random number generator (splitmix64) and a Zipf sampler, for reproducible runs without a dependency.

#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    #[inline]
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A uniform number in 0..n (n > 0), by multiplication. Its bias is below 2^-32.
    #[inline]
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (((self.draw() >> 32) * n as u64) >> 32) as u32
    }

    /// A uniform number in [0, 1).
    #[inline]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A sampler of Zipf-distributed indices 0..n with weights 1/(i+1)^s. A sample takes O(1) (Walker's alias method).
pub(crate) struct Zipf {
    prob: Vec<f64>,
    alias: Vec<u32>,
}

impl Zipf {
    pub(crate) fn new(n: usize, s: f64) -> Zipf {
        let weights: Vec<f64> = (0..n).map(|i| 1.0 / ((i + 1) as f64).powf(s)).collect();
        let total: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|w| w / total * n as f64).collect();
        let mut prob = vec![1.0; n];
        let mut alias: Vec<u32> = (0..n as u32).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| scaled[i] < 1.0);
        while let (Some(s), Some(l)) = (small.pop(), large.pop()) {
            prob[s] = scaled[s];
            alias[s] = l as u32;
            scaled[l] -= 1.0 - scaled[s];
            if scaled[l] < 1.0 {
                small.push(l);
            } else {
                large.push(l);
            }
        }
        Zipf { prob, alias }
    }

    #[inline]
    pub(crate) fn sample(&self, rng: &mut Rng) -> u32 {
        let i = rng.below(self.prob.len() as u32);
        if rng.unit() < self.prob[i as usize] { i } else { self.alias[i as usize] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_matches_its_weights() {
        let z = Zipf::new(10, 1.0);
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 10];
        for _ in 0..200_000 {
            counts[z.sample(&mut rng) as usize] += 1;
        }
        let h: f64 = (1..=10).map(|i| 1.0 / i as f64).sum();
        for (i, c) in counts.iter().enumerate() {
            let want = 200_000.0 / (i + 1) as f64 / h;
            assert!((*c as f64 - want).abs() < want * 0.05 + 50.0, "rank {i}: {c} vs {want}");
        }
    }

    #[test]
    fn below_stays_in_range() {
        let mut rng = Rng::new(7);
        for n in [1u32, 2, 3, 1000] {
            for _ in 0..1000 {
                assert!(rng.below(n) < n);
            }
        }
    }
}
