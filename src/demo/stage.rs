//! The demo's zone in a directory of its own, an origin for each of its servers, and what can be done to them.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::origin::{Mode, Origin};
use crate::config::settings::{Family, Zone};
use crate::config::{Diagnostic, Shared, load_zones};

const ZONE: &str = include_str!("zone.toml");
/// Viewers are where the bundled database puts them, whatever lies about in the current directory.
const NODE: &str = "# The node of `meridian demo`: no database but the bundled one.\ngeoip = []\n";
/// The steered name of the zone.
pub const STREAM: &str = "live.stream.example";

/// Something to do to a server, or to all of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Kill,
    Hang,
    Fail,
    /// The playlist stands still; all else goes on.
    Freeze,
    Revive,
}

impl FromStr for Act {
    type Err = ();

    fn from_str(word: &str) -> Result<Act, ()> {
        match word {
            "kill" => Ok(Act::Kill),
            "hang" => Ok(Act::Hang),
            "fail" => Ok(Act::Fail),
            "freeze" => Ok(Act::Freeze),
            "revive" => Ok(Act::Revive),
            _ => Err(()),
        }
    }
}

impl Act {
    pub fn done(self) -> &'static str {
        match self {
            Act::Kill => "killed",
            Act::Hang => "hung",
            Act::Fail => "made to fail",
            Act::Freeze => "frozen",
            Act::Revive => "revived",
        }
    }
}

/// A region with its origins, in the order of the zone file.
pub struct Region {
    pub name: String,
    pub servers: Vec<Server>,
}

pub struct Server {
    pub addresses: Vec<IpAddr>,
    origin: Origin,
}

impl Server {
    pub fn mode(&self) -> Mode {
        self.origin.mode()
    }
}

/// Owns a directory that is removed when it is dropped.
pub struct Stage {
    directory: PathBuf,
    pub regions: Vec<Region>,
}

#[derive(Debug)]
pub enum StageError {
    Io(io::Error),
    /// The zone in the binary has a fault; a test holds it against that.
    Zone(Vec<Diagnostic>),
}

impl From<io::Error> for StageError {
    fn from(error: io::Error) -> StageError {
        StageError::Io(error)
    }
}

impl std::fmt::Display for StageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StageError::Io(error) => write!(f, "{error}"),
            StageError::Zone(diagnostics) => diagnostics.iter().try_for_each(|diagnostic| writeln!(f, "{diagnostic}")),
        }
    }
}

impl Stage {
    /// Writes the zone into a new directory and binds the origins, each on the address of its probe or, where another
    /// program has that, on a free port beside it. Must be called within a tokio runtime.
    pub async fn set(directory: PathBuf) -> Result<Stage, StageError> {
        // Only ours: another user must not put zones there.
        DirBuilder::new().mode(0o700).create(&directory)?;
        let mut stage = Stage { directory, regions: Vec::new() };
        fs::write(stage.config(), NODE)?;
        fs::create_dir(stage.zones())?;
        let file = stage.zone_file();
        fs::write(&file, ZONE)?;
        let mut text = ZONE.to_owned();
        for region in stage.zone()?.regions {
            let mut servers = Vec::new();
            for server in region.servers.iter() {
                let wanted = server.probe.expect("every server of the demo's zone says where it is probed");
                let origin = match Origin::bind(wanted).await {
                    Ok(origin) => origin,
                    Err(_) => Origin::bind((wanted.ip(), 0).into()).await?,
                };
                text = text.replace(&format!("\"{wanted}\""), &format!("\"{}\"", origin.address()));
                let addresses = Family::BOTH.into_iter().filter_map(|family| server.address(family)).collect();
                servers.push(Server { addresses, origin });
            }
            stage.regions.push(Region { name: region.name.to_string(), servers });
        }
        if text != ZONE {
            fs::write(&file, text)?;
        }
        Ok(stage)
    }

    fn zone(&self) -> Result<Zone, StageError> {
        let mut loaded = load_zones(&[self.zones()], &Shared::default());
        match loaded.zones.pop().filter(|_| !loaded.has_errors()) {
            Some(zone) => Ok(zone),
            None => Err(StageError::Zone(loaded.diagnostics)),
        }
    }

    /// The node's own settings; zones and state lie beside it.
    pub fn config(&self) -> PathBuf {
        self.directory.join("meridian.toml")
    }

    fn zones(&self) -> PathBuf {
        self.directory.join("zones")
    }

    pub fn zone_file(&self) -> PathBuf {
        self.zones().join("stream.example.toml")
    }

    /// The servers that `region`, or its server `number` counted from 1, means.
    pub fn find(&self, region: &str, number: Option<usize>) -> Option<Vec<&Server>> {
        let servers = &self.regions.iter().find(|known| known.name == region)?.servers;
        match number {
            None => Some(servers.iter().collect()),
            Some(number) => Some(vec![servers.get(number.checked_sub(1)?)?]),
        }
    }
}

/// Does `act` to all of `servers`. Errors: a killed one listens again first, and another program may have taken its
/// port.
pub async fn act(act: Act, servers: &[&Server]) -> io::Result<()> {
    let each = servers.iter().map(|server| async move {
        match act {
            Act::Kill => {
                server.origin.kill().await;
                Ok(())
            }
            Act::Hang => server.origin.hang().await,
            Act::Fail => server.origin.fail().await,
            Act::Freeze => server.origin.freeze().await,
            Act::Revive => server.origin.revive().await,
        }
    });
    futures_util::future::try_join_all(each).await.map(drop)
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left in a temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_server_has_an_origin_and_the_zone_probes_it() {
        let dir = tempfile::tempdir().unwrap();
        // Holds a port of the zone's, so that one origin must move.
        let taken = tokio::net::TcpListener::bind("127.0.1.11:8080").await;
        let stage = Stage::set(dir.path().join("demo")).await.unwrap();
        drop(taken);
        assert_eq!(stage.regions.len(), 10);
        let zone = stage.zone().unwrap();
        for (region, settings) in stage.regions.iter().zip(&zone.regions) {
            assert_eq!(region.servers.len(), 2, "{}", region.name);
            for (server, settings) in region.servers.iter().zip(settings.servers.iter()) {
                assert_eq!(settings.probe, Some(server.origin.address()));
                assert_eq!(server.mode(), Mode::Serving);
            }
        }
        let file = stage.config();
        drop(stage);
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn a_region_or_one_of_its_servers_can_be_meant() {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::set(dir.path().join("demo")).await.unwrap();
        act(Act::Kill, &stage.find("london", None).unwrap()).await.unwrap();
        act(Act::Hang, &stage.find("tokyo", Some(2)).unwrap()).await.unwrap();
        let modes = |region| stage.find(region, None).unwrap().iter().map(|s| s.mode()).collect::<Vec<_>>();
        assert_eq!(modes("london"), [Mode::Killed, Mode::Killed]);
        assert_eq!(modes("tokyo"), [Mode::Serving, Mode::Hung]);
        act(Act::Revive, &stage.find("london", None).unwrap()).await.unwrap();
        assert_eq!(modes("london"), [Mode::Serving, Mode::Serving]);
        for (region, number) in [("atlantis", None), ("london", Some(0)), ("london", Some(3))] {
            assert!(stage.find(region, number).is_none());
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_there_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Stage::set(dir.path().to_owned()).await, Err(StageError::Io(_))));
        assert!(dir.path().exists());
    }
}
