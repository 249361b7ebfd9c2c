//! Which location databases a node uses.

use std::path::{Path, PathBuf};

use super::diagnostic::{At, Diagnostic};
use super::settings::Node;
use crate::geo::{Database, expand};

/// Looked into when nothing else is said, and it is there.
const DEFAULT_DIRECTORY: &str = "geoip";
/// Prefixes placed by the operator, in a directory of databases.
const OVERRIDES: &str = "overrides.toml";

/// Where the databases of a node are looked for, whether anything is there or not.
pub fn database_paths(node: &Node) -> Vec<PathBuf> {
    node.geoip.clone().unwrap_or_else(|| vec![DEFAULT_DIRECTORY.into()])
}

/// Reads the databases of a node and its overrides, or the bundled one where it has none. Every fault of every file is
/// told. Blocks for as long as reading takes: some seconds for a full City database.
pub fn load_database(node: &Node) -> Result<Database, Vec<Diagnostic>> {
    let mut paths = database_paths(node);
    // What somebody wrote has to be there, the default does not.
    paths.retain(|path| node.geoip.is_some() || path.exists());
    let files = expand(&paths).map_err(|fault| vec![fault])?;
    let overrides = overrides(&paths).map_err(|fault| vec![*fault])?;
    match (&files[..], &overrides, paths.first()) {
        ([], None, Some(first)) if node.geoip.is_some() => Err(vec![
            Diagnostic::error(At::start(first), "no location database (*.mmdb) there")
                .help("put one there, or leave `geoip` out to use the bundled database"),
        ]),
        ([], None, _) => Ok(Database::bundled()),
        _ => Database::load(&files, overrides.as_deref()),
    }
}

fn overrides(paths: &[PathBuf]) -> Result<Option<PathBuf>, Box<Diagnostic>> {
    let in_directory = |path: &PathBuf| Some(path.join(OVERRIDES)).filter(|file| Path::exists(file));
    let mut found = paths.iter().filter_map(in_directory);
    let first = found.next();
    if let (Some(first), Some(second)) = (&first, found.next()) {
        let fault =
            Diagnostic::error(At::start(&second), "a second file of overrides").rule("one file holds all overrides");
        return Err(Box::new(fault.help(format!("move its entries to {}", first.display()))));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(paths: &[&Path]) -> Result<Database, String> {
        let geoip = Some(paths.iter().map(|path| path.to_path_buf()).collect());
        load_database(&Node { geoip, ..Node::default() }).map_err(|faults| faults[0].what.clone())
    }

    #[test]
    fn what_is_named_has_to_hold_a_database() {
        let empty = tempfile::tempdir().unwrap();
        assert!(load(&[empty.path()]).err().unwrap().contains("no location database"));
        assert!(load(&[&empty.path().join("missing.mmdb")]).is_err());
        assert!(load(&[Path::new("geoip")]).is_ok());
    }

    #[test]
    fn overrides_come_from_one_file() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(one.path().join(OVERRIDES), "\"203.0.113.0/24\" = { near = \"Mauritius\" }\n").unwrap();
        assert!(load(&[one.path(), two.path()]).is_ok());
        fs::write(two.path().join(OVERRIDES), "").unwrap();
        assert_eq!(load(&[one.path(), two.path()]).err().unwrap(), "a second file of overrides");
    }
}
