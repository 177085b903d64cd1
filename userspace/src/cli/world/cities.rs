//! The cities that hunts lie around, and cells by degrees.

use crate::index::morton_of;

/// Name, latitude, longitude, population; see `userspace/data/README.md`.
const CITIES: &str = include_str!("../../../data/cities.csv");

/// Bits of a coordinate of a cell.
pub const COORDINATE_BITS: u32 = veltrix_abi::kinds::CELL_BITS / 2;

/// Reach of a city around its centre, degrees: 0.1 is some 11 km.
pub const CITY_REACH_DEGREES: f64 = 0.1;

/// A row of the list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct City {
    /// Name.
    pub name: &'static str,
    /// Latitude of its centre, degrees.
    pub lat: f64,
    /// Longitude of its centre, degrees.
    pub lon: f64,
    /// Population.
    pub people: u64,
}

impl City {
    fn parse(row: &'static str) -> Option<Self> {
        let mut columns = row.split(',');
        let name = columns.next()?;
        let (lat, lon) = (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?);
        Some(Self { name, lat, lon, people: columns.next()?.parse().ok()? })
    }
}

/// The 2,000 largest cities, the largest first.
pub fn cities() -> impl Iterator<Item = City> {
    CITIES.lines().skip(1).filter_map(City::parse)
}

/// The cell of a position in degrees; what lies outside is moved to the edge.
#[must_use]
pub fn morton(lat: f64, lon: f64) -> u64 {
    let (x, y) = position(lat, lon);
    morton_of(x, y)
}

/// Coordinates of a position in degrees; what lies outside is moved to the edge.
#[must_use]
pub fn position(lat: f64, lon: f64) -> (u32, u32) {
    let steps = f64::from(1_u32 << COORDINATE_BITS);
    let scale = |share: f64| ((share * steps) as u32).min((1 << COORDINATE_BITS) - 1);
    (scale((lon + 180.0) / 360.0), scale((lat + 90.0) / 180.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_city_row_parses_and_lies_on_earth() {
        let all: Vec<_> = cities().collect();
        assert_eq!((all.len(), CITIES.lines().count()), (2_000, 2_001));
        assert!(all.is_sorted_by(|a, b| a.people >= b.people));
        for city in all {
            assert!(city.lat.abs() <= 90.0 && city.lon.abs() <= 180.0, "{city:?}");
            assert!(city.people > 100_000 && !city.name.is_empty(), "{city:?}");
        }
    }

    #[test]
    fn morton_cells_interleave_and_stay_in_60_bits() {
        assert_eq!(morton(-90.0, -180.0), 0);
        assert_eq!(morton(90.0, 180.0), (1 << 60) - 1);
        assert_eq!(morton(500.0, -500.0), 0xaaa_aaaa_aaaa_aaaa);
        // A step of longitude is bit 0, one of latitude bit 1.
        assert_eq!(morton(-90.0, -180.0 + 360.0 / f64::from(1 << 30)), 1);
        assert_eq!(morton(-90.0 + 180.0 / f64::from(1 << 30), -180.0), 2);
    }
}
