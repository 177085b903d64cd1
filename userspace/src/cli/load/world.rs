//! Where synthetic events happen: which hunt, which cell.
//!
//! A hunt is a domain; hunts have the keys 1 to `domains`. A cell is the
//! 60-bit Morton code of a position: 30 bits of longitude on the even bits,
//! 30 of latitude on the odd ones, about 4 cm by 2 cm at the equator.

use veltrix_abi::kinds::CELL_BITS;
use veltrix_client::codec::Random;

use crate::cli::world::cities::{CITY_REACH_DEGREES, cities, morton};

/// How events spread over hunts and cells. Players are uniform in all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Distribution {
    /// Every hunt and every cell alike.
    Uniform,
    /// Hunt and cell by Zipf's law (exponent 0.99): the hottest of 1,000 hunts
    /// gets 13 % of all.
    Zipf,
    /// Around the 2,000 largest cities in proportion to people, a hunt a city
    /// as far as hunts go.
    Cities,
}

/// Exponent of the Zipf distribution: that of the YCSB benchmarks.
const ZIPF_EXPONENT: f64 = 0.99;

/// Cells of a hunt that Zipf's law ranks.
const ZIPF_CELLS: usize = 1_000;

/// Where the next events go.
#[derive(Debug)]
pub struct World {
    domains: u64,
    spread: Spread,
}

#[derive(Debug)]
enum Spread {
    Uniform,
    Zipf { hunts: Alias, cells: Alias },
    Cities { cities: Vec<(f64, f64)>, by_people: Alias },
}

/// A hunt, and what its cells are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Domain key.
    pub domain: u64,
    /// Index of the city; not used by the other distributions.
    city: usize,
}

impl World {
    /// A world of `domains` hunts; at least one.
    #[must_use]
    pub fn new(distribution: Distribution, domains: u64) -> Self {
        let domains = domains.max(1);
        let zipf = |n: usize| Alias::new((1..=n).map(|k| (k as f64).powf(-ZIPF_EXPONENT)));
        let spread = match distribution {
            Distribution::Uniform => Spread::Uniform,
            Distribution::Zipf => Spread::Zipf {
                hunts: zipf(usize::try_from(domains).unwrap_or(usize::MAX)),
                cells: zipf(ZIPF_CELLS),
            },
            Distribution::Cities => Spread::Cities {
                by_people: Alias::new(cities().map(|city| city.people as f64)),
                cities: cities().map(|city| (city.lat, city.lon)).collect(),
            },
        };
        Self { domains, spread }
    }

    /// The hunt of the next datagram.
    pub fn place(&self, random: &mut Random) -> Place {
        let (index, city) = match &self.spread {
            Spread::Uniform => (random.below(self.domains), 0),
            Spread::Zipf { hunts, .. } => (hunts.draw(random) as u64, 0),
            Spread::Cities { by_people, .. } => {
                let city = by_people.draw(random);
                (city as u64 % self.domains, city)
            }
        };
        Place { domain: index + 1, city }
    }

    /// A cell of that hunt.
    pub fn cell(&self, place: Place, random: &mut Random) -> u64 {
        match &self.spread {
            Spread::Uniform => random.next_u64() >> (64 - CELL_BITS),
            Spread::Zipf { cells, .. } => {
                // The same rank is the same cell in every run of a hunt.
                let seed = place.domain << 32 | cells.draw(random) as u64;
                Random::new(seed).next_u64() >> (64 - CELL_BITS)
            }
            Spread::Cities { cities, .. } => {
                let (lat, lon) = cities[place.city];
                // The difference of two uniform draws peaks at the centre.
                let mut near =
                    |centre: f64| centre + (random.unit() - random.unit()) * CITY_REACH_DEGREES;
                let (lat, lon) = (near(lat), near(lon));
                morton(lat, lon)
            }
        }
    }
}

/// Draws indices in proportion to weights in constant time (Vose's alias
/// method).
#[derive(Debug)]
struct Alias {
    /// For each column: the share that is its own, and whose the rest is.
    columns: Vec<(f64, u32)>,
}

impl Alias {
    fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut shares: Vec<f64> = weights.into_iter().collect();
        let total: f64 = shares.iter().sum();
        let n = shares.len() as f64;
        shares.iter_mut().for_each(|share| *share *= n / total);
        let mut columns: Vec<(f64, u32)> = (0..shares.len()).map(|i| (1.0, i as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..shares.len()).partition(|i| shares[*i] < 1.0);
        while let (Some(poor), Some(rich)) = (small.pop(), large.pop()) {
            columns[poor] = (shares[poor], rich as u32);
            shares[rich] -= 1.0 - shares[poor];
            if shares[rich] < 1.0 { small.push(rich) } else { large.push(rich) }
        }
        Self { columns }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let column = random.below(self.columns.len() as u64) as usize;
        let (own, other) = self.columns[column];
        if random.unit() < own { column } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alias_table_draws_in_proportion() {
        let alias = Alias::new([1.0, 2.0, 0.0, 5.0]);
        let mut random = Random::new(7);
        let mut counts = [0_u32; 4];
        for _ in 0..80_000 {
            counts[alias.draw(&mut random)] += 1;
        }
        for (count, wanted) in counts.into_iter().zip([10_000_i64, 20_000, 0, 50_000]) {
            assert!((i64::from(count) - wanted).abs() < 700, "{counts:?}");
        }
    }

    #[test]
    fn hunts_keep_within_their_number() {
        let mut random = Random::new(1);
        for distribution in [Distribution::Uniform, Distribution::Zipf, Distribution::Cities] {
            for domains in [1, 7, 5_000] {
                let world = World::new(distribution, domains);
                for _ in 0..1_000 {
                    let place = world.place(&mut random);
                    assert!((1..=domains).contains(&place.domain));
                    assert!(world.cell(place, &mut random) < 1 << 60);
                }
            }
        }
    }

    #[test]
    fn the_hottest_hunt_of_zipf_gets_its_share() {
        let world = World::new(Distribution::Zipf, 1_000);
        let mut random = Random::new(3);
        let hottest = (0..100_000).filter(|_| world.place(&mut random).domain == 1).count();
        assert!((12_000..14_500).contains(&hottest), "{hottest}");
    }
}
