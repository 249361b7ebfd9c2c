//! The grid by which neighbours are taken together.

use super::Point;

/// Two degrees of latitude and longitude. It stays the same from one set of databases to the next, so that what is learned of
/// it outlives a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Square {
    /// From the equator, northwards: −45 to 45.
    pub row: i8,
    /// From Greenwich, eastwards: −90 to 90.
    pub column: i8,
}

impl Square {
    /// Of each side.
    pub const DEGREES: i8 = 2;

    pub fn of(at: Point) -> Square {
        // As places have their locations: a client and its place must not lie on two sides of a border.
        let number = |degrees: f64| ((degrees * 100.0).round() / 100.0 / f64::from(Square::DEGREES)).floor() as i8;
        Square { row: number(at.lat()), column: number(at.lon()) }
    }

    /// Two squares by two: some 400 km, a big city and what lies around it.
    pub fn metro(self) -> Square {
        Square { row: self.row.div_euclid(2), column: self.column.div_euclid(2) }
    }

    /// Latitude and longitude of its south-western and its north-eastern corner, degrees.
    pub fn corners(self) -> [(f64, f64); 2] {
        let degrees = |number: i8| f64::from(number) * f64::from(Square::DEGREES);
        let (south, west) = (degrees(self.row), degrees(self.column));
        let side = f64::from(Square::DEGREES);
        [(south, west), (south + side, west + side)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lat: f64, lon: f64) -> (i8, i8) {
        let square = Square::of(Point::new(lat, lon).unwrap());
        (square.row, square.column)
    }

    #[test]
    fn squares_are_two_degrees_and_metros_four() {
        assert_eq!([at(51.5, -0.1), at(90.0, 180.0), at(-90.0, -180.0)], [(25, -1), (45, 90), (-45, -90)]);
        let metro = |row, column| Square { row, column }.metro();
        assert_eq!((metro(25, -1), metro(24, -2)), (Square { row: 12, column: -1 }, Square { row: 12, column: -1 }));
        assert_eq!(Square { row: 25, column: -1 }.corners(), [(50.0, -2.0), (52.0, 0.0)]);
    }

    #[test]
    fn a_hair_from_a_border_is_on_the_side_of_what_lies_on_it() {
        assert_eq!(at(51.9996, 1.9999), at(52.0, 2.0));
    }
}
