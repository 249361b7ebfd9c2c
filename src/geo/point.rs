//! A place on the globe.

/// Mean radius of the Earth (IUGG), km.
const EARTH_KM: f64 = 6371.0088;

/// Degrees; latitude in [-90, 90], longitude in [-180, 180].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    lat: f64,
    lon: f64,
}

impl Point {
    /// `None` when a coordinate is not a number or out of range.
    pub fn new(lat: f64, lon: f64) -> Option<Point> {
        ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)).then_some(Point { lat, lon })
    }

    pub fn lat(self) -> f64 {
        self.lat
    }

    pub fn lon(self) -> f64 {
        self.lon
    }

    /// Great-circle distance by the haversine formula, km.
    pub fn distance_km(self, other: Point) -> f64 {
        let (a, b) = (self.lat.to_radians(), other.lat.to_radians());
        let half_lat = ((b - a) / 2.0).sin();
        let half_lon = ((other.lon - self.lon).to_radians() / 2.0).sin();
        let h = half_lat * half_lat + a.cos() * b.cos() * half_lon * half_lon;
        2.0 * EARTH_KM * h.sqrt().min(1.0).asin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_great_circles() {
        let london = Point::new(51.5074, -0.1278).unwrap();
        let new_york = Point::new(40.7128, -74.0060).unwrap();
        assert!((london.distance_km(new_york) - 5570.0).abs() < 5.0);
        let (east, west) = (Point::new(0.0, 179.5).unwrap(), Point::new(0.0, -179.5).unwrap());
        assert!((east.distance_km(west) - 111.2).abs() < 0.5, "the date line is no wall");
    }

    #[test]
    fn coordinates_off_the_globe_are_refused() {
        assert!(Point::new(90.1, 0.0).is_none() && Point::new(0.0, f64::NAN).is_none());
    }
}
