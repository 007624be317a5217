//! A backup at rest in a folder: looked at, spoiled, forged. An S3 server's own folder does as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::program::Respaldo;
use super::tool;

/// `<destination>/<job>/<id>`.
#[derive(Debug, Clone)]
pub struct Stored {
    pub folder: PathBuf,
}

impl Stored {
    /// Every folder of a job with an id's name, oldest first.
    pub fn all(destination: &Path, job: &str) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(destination.join(job)) else { return Vec::new() };
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders.into_iter().map(|folder| Self { folder }).collect()
    }

    #[track_caller]
    pub fn newest(destination: &Path, job: &str) -> Self {
        let newest = Self::all(destination, job).pop();
        newest.unwrap_or_else(|| panic!("no backup of {job} in {}", destination.display()))
    }

    pub fn ids(destination: &Path, job: &str) -> Vec<String> {
        Self::all(destination, job).iter().map(Self::id).collect()
    }

    pub fn id(&self) -> String {
        self.folder.file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("manifest.json")).unwrap()).unwrap()
    }

    /// Writes the manifest anew and takes the signature away, which no longer fits.
    pub fn write_manifest(&self, manifest: &Value) {
        fs::write(self.path("manifest.json"), serde_json::to_vec(manifest).unwrap()).unwrap();
        drop(fs::remove_file(self.path("manifest.sig")));
    }

    /// The file of artifact `index`.
    pub fn artifact(&self, index: usize) -> PathBuf {
        self.path(self.manifest()["artifacts"][index]["name"].as_str().unwrap())
    }

    /// Replaces artifact `index` by plain bytes, with all digests right again: a forgery that only
    /// the engine's own reader can find.
    pub fn forge(&self, index: usize, plain: &[u8]) {
        let name = self.manifest()["artifacts"][index]["name"].as_str().unwrap().to_owned();
        self.forge_as(index, &name, plain);
    }

    /// As [`Self::forge`], under a name, compressed if it ends so; one past the last adds an artifact
    /// like the first.
    pub fn forge_as(&self, index: usize, name: &str, plain: &[u8]) {
        let mut manifest = self.manifest();
        fs::write(self.path(name), plain).unwrap();
        let zstd = name.ends_with(".zst");
        if zstd {
            let path = self.path(name);
            let beside = self.path("plain");
            fs::rename(&path, &beside).unwrap();
            tool(Command::new("zstd").args(["-q", "--rm", "-o"]).arg(&path).arg(&beside));
        }
        let stored = fs::read(self.path(name)).unwrap();
        let digest = |bytes: &[u8]| respaldo::pipeline::sha256(bytes).to_string();
        let artifacts = manifest["artifacts"].as_array_mut().unwrap();
        if index == artifacts.len() {
            let first = artifacts[0].clone();
            artifacts.push(first);
        }
        let artifact = &mut artifacts[index];
        artifact["name"] = json!(name);
        artifact["compression"] = json!(if zstd { "zstd" } else { "none" });
        artifact["plain_bytes"] = json!(plain.len());
        artifact["plain_sha256"] = json!(digest(plain));
        artifact["stored_bytes"] = json!(stored.len());
        artifact["stored_sha256"] = json!(digest(&stored));
        let (bytes, sha256) = (stored.len(), digest(&stored));
        artifact["volumes"] = json!([{ "name": name, "bytes": bytes, "sha256": sha256 }]);
        let sums = artifacts.iter().flat_map(|artifact| artifact["volumes"].as_array().unwrap());
        let sums = sums.map(|volume| {
            format!(
                "{}  {}\n",
                volume["sha256"].as_str().unwrap(),
                volume["name"].as_str().unwrap()
            )
        });
        fs::write(self.path("SHA256SUMS"), sums.collect::<String>()).unwrap();
        self.write_manifest(&manifest);
    }

    /// A copy of it under another id, unsigned: an older or newer backup of the same job.
    pub fn copy_as(&self, id: &str) -> Self {
        let folder = self.folder.with_file_name(id);
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
            }
        }
        let copy = Self { folder };
        let mut manifest = copy.manifest();
        manifest["id"] = json!(id);
        copy.write_manifest(&manifest);
        copy
    }

    /// Changes one byte of a file, in its middle.
    pub fn flip(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

/// Signs a manifest that was changed, as whoever has the key could.
pub fn sign(respaldo: &Respaldo, stored: &Stored) {
    let signer = respaldo::signature::Signer::load_or_create(&respaldo.path("data/signing.key"));
    let manifest = fs::read(stored.path("manifest.json")).unwrap();
    let signature = serde_json::to_vec(&signer.unwrap().sign(&manifest)).unwrap();
    fs::write(stored.path("manifest.sig"), signature).unwrap();
}
