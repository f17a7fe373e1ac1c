//! An onion service of C tor's: one node of kind client serves it, another one reaches it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::SOCKS_PORT;
use super::control::Control;
use super::network::Network;
use super::source::{ASK, Brake, Source, receive};

/// What stands behind the service: gives bytes to whoever connects.
pub struct Site {
    source: Source,
}

/// The service's port.
const PORT: u16 = 80;

impl Site {
    /// Listens where the network has its source.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn listen(network: &Network) -> anyhow::Result<Self> {
        Ok(Self {
            source: Source::listen(network.state.source_address()?, &[], 0)?,
        })
    }
}

impl Network {
    /// Lets a node serve this site, until it ends; the service's name.
    ///
    /// # Errors
    /// It refuses.
    pub fn serve_onion(&self, node: &str, site: &Site) -> anyhow::Result<String> {
        let target = site.source.address()?;
        let mut control = self.control(node)?;
        let reply = control.command(&format!(
            "ADD_ONION NEW:ED25519-V3 Flags=Detach,DiscardPK Port={PORT},{target}"
        ))?;
        let id = reply.iter().find_map(|line| line.strip_prefix("ServiceID="));
        Ok(format!("{}.onion", id.context("a service without a name")?))
    }

    /// Reads so many bytes from the service through this client, and compares digests.
    ///
    /// # Errors
    /// The service is not reached, or not all comes as it was sent.
    pub fn onion_fetch(
        &self,
        client: &str,
        onion: &str,
        site: &Site,
        bytes: u64,
        patience: Duration,
    ) -> anyhow::Result<String> {
        let node = self.state.node(client)?;
        let socks = SocketAddr::from((node.address, SOCKS_PORT));
        let brake = Brake::default();
        std::thread::scope(|scope| {
            let far = scope.spawn(|| site.source.give(bytes, &brake));
            let near = read_from(socks, onion, bytes, patience);
            if near.is_err() {
                brake.pull();
            }
            let far = far.join().map_err(|_| anyhow::anyhow!("the site broke"))?;
            let (near, far) = (near?, far?);
            ensure!(near == far, "the bytes changed under way: {far} was sent, {near} came");
            Ok(near)
        })
    }

    /// The fingerprints of the last hops of all open circuits with one of these purposes.
    ///
    /// # Errors
    /// The node's control port does not answer.
    pub fn last_hops(&self, node: &str, purposes: &[&str]) -> anyhow::Result<BTreeSet<String>> {
        let status = self.control(node)?.info("circuit-status")?.unwrap_or_default();
        Ok(last_hops(&status, purposes))
    }

    /// Lets a client forget its circuits, rendezvous included, and the descriptors of onion services.
    ///
    /// # Errors
    /// Its control port does not answer.
    pub fn forget_circuits(&self, client: &str) -> anyhow::Result<()> {
        self.control(client)?.command("SIGNAL NEWNYM").map(drop)
    }

    /// Listens from now on to what this node says of onion service descriptors.
    ///
    /// # Errors
    /// Its control port does not answer.
    pub fn descriptor_events(&self, node: &str) -> anyhow::Result<DescriptorEvents> {
        let mut control = self.control(node)?;
        control.command("SETEVENTS HS_DESC")?;
        Ok(DescriptorEvents {
            control,
            directories: BTreeSet::new(),
        })
    }
}

/// Which directories took or gave descriptors of onion services.
pub struct DescriptorEvents {
    control: Control,
    directories: BTreeSet<String>,
}

impl DescriptorEvents {
    /// Fingerprints of all that took (`UPLOADED`) or gave one (`RECEIVED`) so far.
    ///
    /// # Errors
    /// The control port is gone.
    pub fn directories(&mut self) -> anyhow::Result<&BTreeSet<String>> {
        while let Some(event) = self.control.event(Duration::from_millis(10))? {
            self.directories.extend(directory_of(&event));
        }
        Ok(&self.directories)
    }
}

/// `HS_DESC UPLOADED address auth $fingerprint~nickname …` (control-spec "HiddenService descriptors").
fn directory_of(event: &str) -> Option<String> {
    let words: Vec<&str> = event.split_whitespace().collect();
    let ["HS_DESC", "UPLOADED" | "RECEIVED", _, _, directory, ..] = words.as_slice() else {
        return None;
    };
    Some(fingerprint(directory))
}

/// `number BUILT $fingerprint~nickname,… … PURPOSE=…` (control-spec "circuit-status").
fn last_hops(status: &str, purposes: &[&str]) -> BTreeSet<String> {
    let built = status.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (_, state, path) = (words.next()?, words.next()?, words.next()?);
        let purpose = words.find_map(|word| word.strip_prefix("PURPOSE="))?;
        (state == "BUILT" && purposes.contains(&purpose)).then(|| fingerprint(path.rsplit(',').next().unwrap_or(path)))
    });
    built.collect()
}

pub(super) fn fingerprint(hop: &str) -> String {
    let name = hop.trim_start_matches('$');
    name.split(['~', '=']).next().unwrap_or(name).to_owned()
}

/// SOCKS 5 with a name (RFC 1928), then bytes.
fn read_from(socks: SocketAddr, name: &str, bytes: u64, patience: Duration) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(socks).context("the client takes no streams")?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&[5, 1, 0])?;
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting)?;
    ensure!(greeting == [5, 0], "the client refuses SOCKS 5");
    let mut request = vec![5, 1, 0, 3, u8::try_from(name.len())?];
    request.extend(name.bytes());
    request.extend(PORT.to_be_bytes());
    stream.write_all(&request)?;
    let mut reply = [0; 10];
    stream
        .read_exact(&mut reply)
        .context("the client closed before it answered")?;
    ensure!(
        reply.starts_with(&[5, 0]),
        "the service was not reached: SOCKS code {:?}",
        reply.get(1)
    );
    stream.write_all(ASK).context("the client takes no bytes")?;
    receive(&mut stream, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hop_of_a_circuit_of_a_purpose_is_found() {
        let status = "3 BUILT $AA~r1,$BB~r2,$CC~r3 BUILD_FLAGS=IS_INTERNAL PURPOSE=HS_SERVICE_INTRO HS_STATE=HSSI_ESTABLISHED\n\
                      4 EXTENDED $AA~r1,$DD~r4 PURPOSE=HS_SERVICE_INTRO\n\
                      5 BUILT $AA~r1,$EE=r5 PURPOSE=GENERAL\n";
        assert_eq!(
            last_hops(status, &["HS_SERVICE_INTRO"]),
            BTreeSet::from(["CC".to_owned()])
        );
        assert_eq!(last_hops(status, &["GENERAL"]), BTreeSet::from(["EE".to_owned()]));
    }

    #[test]
    fn only_a_descriptor_that_went_through_names_its_directory() {
        let event = "HS_DESC UPLOADED abc UNKNOWN $AA~r1";
        assert_eq!(directory_of(event).as_deref(), Some("AA"));
        assert_eq!(directory_of("HS_DESC UPLOAD abc UNKNOWN $AA~r1 xyz"), None);
        assert_eq!(directory_of("HS_DESC FAILED abc NO_AUTH $AA~r1 REASON=NOT_FOUND"), None);
    }
}
