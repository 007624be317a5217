//! The entries of a folder put in the place of those that are there: each by one exchange of names,
//! all of them written down first, so that whoever kills us in between has it finished by the next
//! start. A mount point can't be renamed, so what is in it is. Knows names and inodes; must not know
//! what a backup is.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{OFlags, RenameFlags, renameat, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::folder::{below, inode, make_alike, modified, names, open, open_at, set_time};
use crate::durable::{self, Existing};
use crate::fault::{Context, Fault, Result};

const JOURNAL: &str = "journal.json";
/// What comes, and what was there.
pub(super) const COMING: &str = "new";
pub(super) const FORMER: &str = "old";
/// A larger one is not ours.
const MAX_JOURNAL_BYTES: u64 = 512 << 20;

/// Bytes of a name or a path, in hexadecimal: they need not be text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Raw(String);

impl Raw {
    fn of(path: &Path) -> Self {
        Self(hex::encode(path.as_os_str().as_bytes()))
    }

    fn path(&self) -> Result<PathBuf> {
        let bytes = hex::decode(&self.0).context("read a restore's journal")?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
    }
}

/// One name in the folder, and the inodes that it stands for before and after.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: Raw,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<u64>,
}

/// What will be done: from the moment it lies there, it is done, by us or by the next one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    folder: Raw,
    /// All of the folder is replaced, or only the entries.
    whole: bool,
    entries: Vec<Entry>,
    /// Staging folders of what is put in place together with it.
    peers: Vec<Raw>,
    came: SystemTime,
    was: SystemTime,
    /// It puts back what another one kept.
    undoes: bool,
}

/// The ways of a plan's entries: all that is at the top, or those that somebody chose.
pub(super) type Chosen<'a> = Option<&'a dyn Fn(&Path) -> bool>;

impl Journal {
    /// Plans what lies in `staging/new` into the place of what is in `folder`.
    fn plan(
        (folder, was): (&Path, SystemTime),
        staging: &Path,
        chosen: Chosen<'_>,
        peers: &[PathBuf],
    ) -> Result<Self> {
        let doing = || format!("look at {}", folder.display());
        let coming = staging.join(COMING);
        let came = modified(&coming).context(doing())?;
        let mut entries = Vec::new();
        if folder.exists() {
            let (live, new) = (open(folder)?, open(&coming)?);
            match chosen {
                None => whole(&live, &new, &mut entries).context(doing())?,
                Some(chosen) => part(&live, &new, Path::new(""), chosen, &mut entries)?,
            }
        }
        let peers = peers.iter().map(|peer| Raw::of(peer)).collect();
        Ok(Self {
            folder: Raw::of(folder),
            whole: chosen.is_none(),
            entries,
            peers,
            came,
            was,
            undoes: false,
        })
    }

    pub(super) fn read(staging: &Path) -> Result<Option<Self>> {
        let path = staging.join(JOURNAL);
        let doing = || format!("read {}", path.display());
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.context(doing())?,
        };
        // Whoever may write into the folder must not tell us what to do.
        let owner = file.metadata().context(doing())?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(Fault::permanent(doing()).cause(Fault::permanent("it is somebody else's")));
        }
        let mut text = Vec::new();
        file.take(MAX_JOURNAL_BYTES).read_to_end(&mut text).context(doing())?;
        serde_json::from_slice(&text).context(doing()).map(Some)
    }

    fn write(&self, staging: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("write a restore's journal")?;
        let path = staging.join(JOURNAL);
        durable::write(&path, &text, Existing::Replace).context(format!("write {}", path.display()))
    }

    /// Whether nothing need be kept where nothing was.
    pub(super) fn is_first(&self) -> bool {
        !self.undoes
    }

    /// The folder's own time, when all is done in it; that of what was there is in the journal.
    pub(super) fn set_time_of(&self, folder: &Path) -> Result<()> {
        match self.whole {
            true => {
                set_time(folder, self.came).context(format!("put files into {}", folder.display()))
            }
            false => Ok(()),
        }
    }

    pub(super) fn folder(&self) -> Result<PathBuf> {
        self.folder.path()
    }

    /// Whether each of those that go together with it was written down, too, or is done.
    pub(super) fn is_agreed(&self) -> Result<bool> {
        for peer in &self.peers {
            let peer = peer.path()?;
            if peer.symlink_metadata().is_ok() && peer.join(JOURNAL).symlink_metadata().is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Everything at the top of both.
fn whole(live: &OwnedFd, new: &OwnedFd, entries: &mut Vec<Entry>) -> io::Result<()> {
    for name in names(new)? {
        let (new, old) = (inode(new, &name)?, inode(live, &name)?);
        entries.push(Entry { path: Raw::of(Path::new(&name)), new, old });
    }
    for name in names(live)? {
        if !super::is_ours(&name) && inode(new, &name)?.is_none() {
            let old = inode(live, &name)?;
            entries.push(Entry { path: Raw::of(Path::new(&name)), new: None, old });
        }
    }
    Ok(())
}

/// What was chosen: each where it is, however deep; and folders on the way that are not there.
fn part(
    live: &OwnedFd,
    new: &OwnedFd,
    below: &Path,
    chosen: &dyn Fn(&Path) -> bool,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let doing = || format!("look at {}", below.display());
    for name in names(new).context(doing())? {
        let path = below.join(&name);
        let old = inode(live, &name).context(doing())?;
        if chosen(&path) || old.is_none() {
            let new = inode(new, &name).context(doing())?;
            entries.push(Entry { path: Raw::of(&path), new, old });
            continue;
        }
        let inside = |folder| open_at(folder, &name);
        let (Ok(inner_live), Ok(inner_new)) = (inside(live), inside(new)) else {
            return Err(Fault::permanent(format!("{} is no folder here", path.display()))
                .hint("restore it with --to, into a new folder"));
        };
        part(&inner_live, &inner_new, &path, chosen, entries)?;
    }
    Ok(())
}

/// Writes down what will happen with what is in `staging/new`; from then on it does.
pub(super) fn prepare(
    (folder, was): (&Path, SystemTime),
    staging: &Path,
    chosen: Chosen<'_>,
    peers: &[PathBuf],
) -> Result<()> {
    let doing = || format!("put files into {}", folder.display());
    let journal = Journal::plan((folder, was), staging, chosen, peers)?;
    if folder.exists() {
        let former = staging.join(FORMER);
        durable::create_folder(&former).context(doing())?;
        make_alike(&File::open(folder).context(doing())?, &former).context(doing())?;
    }
    // All of it is on the disk before any of it has its name.
    let top = File::open(staging).context(doing())?;
    rustix::fs::syncfs(&top).context(doing())?;
    journal.write(staging)
}

/// Does what is written down, or what is left of it. Where the folder was there, all that it held is
/// in `staging/old` then.
pub(super) fn roll(staging: &Path, journal: &Journal) -> Result<()> {
    let folder = journal.folder()?;
    let doing = || format!("put files into {}", folder.display());
    let (coming, former) = (staging.join(COMING), staging.join(FORMER));
    // All was in place, and it was cut off while this was being removed.
    if !coming.exists() {
        return Ok(());
    }
    if !former.exists() {
        match renameat_with(
            rustix::fs::CWD,
            &coming,
            rustix::fs::CWD,
            &folder,
            RenameFlags::NOREPLACE,
        ) {
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&coming, &folder).context(doing())?,
            done => done.context(doing())?,
        }
        return durable::sync_parent(&folder).context(doing());
    }
    let trees = Trees { live: open(&folder)?, new: open(&coming)?, old: open(&former)? };
    for entry in &journal.entries {
        let path = entry.path.path()?;
        trees.exchange(&path, entry).context(format!("put {} in place", path.display()))?;
    }
    if journal.whole {
        let like = File::open(&coming).context(doing())?;
        make_alike(&like, &folder).context(doing())?;
    }
    rustix::fs::syncfs(&trees.live).context(doing())
}

/// Takes back what was done of it.
pub(super) fn unroll(staging: &Path, journal: &Journal) -> Result<()> {
    let folder = journal.folder()?;
    let former = staging.join(FORMER);
    if former.exists() {
        let doing = || format!("put files back into {}", folder.display());
        let trees =
            Trees { live: open(&folder)?, new: open(&staging.join(COMING))?, old: open(&former)? };
        for entry in journal.entries.iter().rev() {
            trees.take_back(&entry.path.path()?, entry).context(doing())?;
        }
        if journal.whole {
            make_alike(&File::open(&former).context(doing())?, &folder).context(doing())?;
        }
        set_time(&folder, journal.was).context(doing())?;
    }
    remove_journal(staging)
}

pub(super) fn remove_journal(staging: &Path) -> Result<()> {
    let path = staging.join(JOURNAL);
    match fs::remove_file(&path).and_then(|()| durable::sync_parent(&path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Turns what was kept into what comes: its `old` becomes `new`, and its journal says how. The
/// caller then gives the folder the name of a staging one.
pub(super) fn turn(kept: &Path, folder: &Path, staging: &Path) -> Result<()> {
    let doing = || format!("make {} ready", kept.display());
    let Some(journal) = Journal::read(kept)? else {
        return Err(Fault::permanent(format!("{} is not what a restore kept", kept.display())));
    };
    let (coming, former) = (kept.join(COMING), kept.join(FORMER));
    // It was cut off in here before.
    if !coming.exists() {
        fs::rename(&former, &coming).context(doing())?;
    }
    durable::create_folder(&former).context(doing())?;
    make_alike(&File::open(folder).context(doing())?, &former).context(doing())?;
    let was = modified(folder).context(doing())?;
    let mut turned = Journal::plan((folder, was), kept, None, &[])?;
    turned.whole = journal.whole;
    if !journal.whole {
        let (live, new) = (open(folder)?, open(&coming)?);
        turned.entries.clear();
        for entry in journal.entries {
            let path = entry.path.path()?;
            let at = |root: &OwnedFd| -> io::Result<Option<u64>> {
                let Some((parent, name)) = below(root, &path, false)? else { return Ok(None) };
                inode(&parent, &name)
            };
            let (new, old) = (at(&new).context(doing())?, at(&live).context(doing())?);
            turned.entries.push(Entry { path: entry.path, new, old });
        }
    }
    turned.came = journal.was;
    turned.undoes = true;
    turned.write(kept)?;
    fs::rename(kept, staging).context(doing())?;
    durable::sync_parent(staging).context(doing())
}

struct Trees {
    live: OwnedFd,
    new: OwnedFd,
    old: OwnedFd,
}

impl Trees {
    /// One name: what comes goes in, what was there goes to the former ones. Whatever of it is done
    /// already stays done.
    fn exchange(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let Some((live, name)) = below(&self.live, path, false)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let name = name.as_os_str();
        let to_old = |from: &OwnedFd| -> io::Result<()> {
            let (old, _) = below(&self.old, path, true)?.ok_or(io::ErrorKind::NotFound)?;
            Ok(renameat(from, name, &old, name)?)
        };
        if let Some(wanted) = entry.new {
            let is_in = inode(&live, name)? == Some(wanted);
            let Some((new, _)) = below(&self.new, path, false)? else {
                // All is in place, and what was left here is being removed.
                return if is_in { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) };
            };
            if !is_in {
                match renameat_with(&new, name, &live, name, RenameFlags::EXCHANGE) {
                    Ok(()) => {}
                    Err(Errno::NOENT) => renameat(&new, name, &live, name)?,
                    // NFS and some FUSE file systems know no exchange.
                    Err(Errno::INVAL | Errno::NOSYS) => {
                        if inode(&live, name)?.is_some() {
                            to_old(&live)?;
                        }
                        renameat(&new, name, &live, name)?;
                    }
                    Err(errno) => return Err(errno.into()),
                }
            }
            if inode(&new, name)?.is_some() {
                to_old(&new)?;
            }
        } else if entry.old.is_some() && inode(&live, name)? == entry.old {
            to_old(&live)?;
        }
        Ok(())
    }

    fn take_back(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let Some((live, name)) = below(&self.live, path, false)? else { return Ok(()) };
        let name = name.as_os_str();
        let new = below(&self.new, path, false)?.map(|(new, _)| new);
        let is_in = entry.new.is_some() && inode(&live, name)? == entry.new;
        if let (true, Some(new)) = (is_in, &new) {
            if inode(new, name)?.is_some() {
                // Exchanged, and not yet put with the former ones.
                return Ok(renameat_with(new, name, &live, name, RenameFlags::EXCHANGE)?);
            }
            renameat(&live, name, new, name)?;
        }
        let Some((old, _)) = below(&self.old, path, false)? else { return Ok(()) };
        if inode(&old, name)?.is_some() && inode(&live, name)?.is_none() {
            renameat(&old, name, &live, name)?;
        }
        Ok(())
    }
}
