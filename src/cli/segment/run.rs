//! A run: reads, segments and writes every photo, in stages that run at the same time.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::anyhow;
use rtformer::files;
use rtformer::pixels::Image;
use rtformer::{Decision, Error, Padding, Scene, Segmenter};

use super::super::console::{Console, counted};
use super::super::model::opened;
use super::super::objects::{Content, Stores};
use super::super::{batch, misuse, photos};
use super::ahead::ahead;
use super::args::Args;
use super::emit::Emit;
use super::inputs::Failure;
use super::jobs::{self, Job};
use super::outputs::{self, Drawing, Progress};
use super::pipeline;
use super::record::{Record, Settings};
use super::report::{self, Lines};
use super::sorted::{PassedOver, Placed};
use super::stop::Stop;
use super::target::Target;
use super::tiled::{Large, Strips};

/// The photos of a run.
pub(super) struct Planned {
    pub(super) photos: Box<dyn Iterator<Item = Result<Placed, Failure>> + Send>,
    /// Their number, if it is known before they are listed.
    pub(super) count: Option<u64>,
    pub(super) passed_over: Arc<PassedOver>,
    pub(super) stores: Stores,
}

/// The numbers of photos by result.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: usize,
    /// The photos among `done` that had outputs from another photo or other settings.
    pub(super) replaced: usize,
    /// The photos that an earlier run had done.
    pub(super) skipped: usize,
    pub(super) failed: usize,
}

impl Tally {
    pub(super) fn fail(&mut self, args: &Args, console: &Console, lines: &mut Lines, path: &Path, reason: &str) {
        self.failed += 1;
        console.error(reason);
        if args.json {
            lines.print(&report::failure(path, reason));
        }
    }
}

/// A photo that was read and will be segmented.
struct Photo {
    image: Image,
    record: Record,
    /// The tag of an object, or the digest of its bytes.
    version: String,
    read_ms: f64,
    /// Whether it has outputs from another photo or other settings.
    replaces: bool,
}

/// The result of the first stage.
enum Opened {
    Photo(Box<Photo>),
    /// A photo that is segmented in tiles.
    Large(Box<Large>),
    /// An earlier run has done it. Holds the fingerprints of its outputs that are not stored.
    Before(Vec<u128>),
}

/// The result of the last stage.
enum Written {
    /// The photo was segmented. `line` is its JSON line, or empty if not needed.
    Now { line: String, replaced: bool, fingerprints: Vec<u128> },
    /// An earlier run had done the photo.
    Before { fingerprints: Vec<u128> },
}

/// A photo and its scene, or the fingerprints of one that was done before.
enum Seen {
    Scene(Box<(Photo, Scene)>),
    /// The outputs were written while it was segmented.
    Written(Written),
    Before(Vec<u128>),
}

/// A run, with the data that its stages share.
pub(super) struct Run<'a> {
    args: &'a Args,
    console: &'a Console,
    emits: Vec<Emit>,
    segmenter: Segmenter,
    settings: Settings,
    /// The data set's own id of each class.
    labels: Vec<u16>,
    target: Target,
    stop: Stop,
}

impl<'a> Run<'a> {
    /// Opens the segmenter. Fails if a requested output cannot be made with its weights.
    pub(super) fn new(args: &'a Args, console: &'a Console, mut target: Target, stop: Stop) -> anyhow::Result<Self> {
        let (segmenter, settings) = thread::scope(|scope| -> anyhow::Result<_> {
            let settings = scope.spawn(|| settings(args)); // in parallel, because it takes about as long as opening the segmenter
            let segmenter = segmenter(args)?;
            Ok((segmenter, settings.join().map_err(|_| anyhow!("the weights' digest cannot be computed"))??))
        })?;
        let dataset = segmenter.dataset();
        let labels: Vec<_> = dataset.classes.iter().filter_map(|class| class.label_id).collect();
        let emits = args.emits();
        if emits.contains(&Emit::Labelid) && labels.len() < dataset.classes.len() {
            return Err(misuse(format!(
                "--emit labelid: the data set `{}` has no label ids; leave it out, or use weights for Cityscapes",
                dataset.name
            )));
        }
        console.note(&segmenter.to_string());
        target.start(args, console)?;
        Ok(Self { args, console, emits, segmenter, settings, labels, target, stop })
    }

    /// Reads, segments and encodes the photos in parallel stages. Reports the results in the order of the inputs.
    pub(super) fn all(&self, planned: Planned, tally: &mut Tally, lines: &mut Lines) {
        let Planned { photos, count, passed_over, stores } = planned;
        let started = Instant::now();
        let bar = match count {
            Some(count) => self.console.progress(count, "photos"),
            None => self.console.count("photos"),
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Full-size logits are large (160 MB per Cityscapes frame), so fewer of them may wait.
        let encoders = if self.emits.contains(&Emit::Logits) { 1 } else { cores.min(4) };
        let is_done = |placed: &Placed| {
            if !self.args.resume && !self.args.overwrite {
                self.target.check_absent(&self.emits, &placed.stem, placed.existing.as_deref())?;
            }
            Ok(self.args.resume && self.target.is_done(&self.emits, placed, &self.settings))
        };
        thread::scope(|scope| {
            let jobs = jobs::jobs(photos, stores, is_done, self.args.to_stdout(), &self.stop);
            let jobs = ahead(jobs.take_while(|_| !self.stop.asked()), self.args.prefetch);
            let jobs = jobs.take_while(|_| !self.stop.asked());
            let opened = pipeline::ordered(scope, cores.min(4), 2, jobs, |mut job| {
                let photo = self.open(&mut job);
                (job, photo)
            });
            let segmented = self.segmented(opened);
            let written =
                pipeline::ordered(scope, encoders, 1, segmented, |(job, seen)| (self.encode(&job, seen), job.name));
            for (written, name) in written {
                bar.inc(1);
                self.count(&name, written, tally, lines);
            }
        });
        self.target.done(None, self.console);
        self.console.finish();
        passed_over.texts().for_each(|text| self.console.detail(&text));
        self.summarize(tally, started);
    }

    fn count(&self, name: &Path, written: rtformer::Result<Written>, tally: &mut Tally, lines: &mut Lines) {
        match written {
            Ok(Written::Before { fingerprints }) => {
                tally.skipped += 1;
                self.target.done(Some(&fingerprints), self.console);
            }
            Ok(Written::Now { line, replaced, fingerprints }) => {
                self.target.done(Some(&fingerprints), self.console);
                tally.done += 1;
                tally.replaced += usize::from(replaced);
                self.console.detail(&format!("{} done", name.display()));
                if self.args.json {
                    lines.print(&line);
                }
            }
            Err(error) => {
                tally.fail(self.args, self.console, lines, name, &format!("{:#}", anyhow::Error::from(error)));
                if self.args.fail_fast {
                    self.stop.ask();
                }
            }
        }
        if lines.is_closed() && self.emits.is_empty() {
            self.stop.ask(); // the results are not wanted any more
        }
    }

    fn summarize(&self, tally: &Tally, started: Instant) {
        let Tally { done, replaced, skipped, failed } = tally;
        let seconds = started.elapsed().as_secs_f64();
        let mut text = if *done + *failed == 0 && *skipped > 0 {
            format!("nothing left to do, {} done before", counted(*skipped, "photo"))
        } else {
            let rate = *done as f64 / seconds;
            let mut text = format!("{} in {seconds:.1} s ({rate:.1} per second)", counted(*done, "photo"));
            for (count, what) in [
                (*replaced, "replaced outputs of other photos or settings"),
                (*skipped, "done before"),
                (*failed, "failed"),
            ] {
                if count > 0 {
                    text += &format!(", {count} {what}");
                }
            }
            text
        };
        if let Some(out) = self.args.folder() {
            text += &format!(" -> {}", out.display());
        }
        self.console.note(&text);
    }

    /// Reads and decodes a photo, unless an earlier run has done it.
    fn open(&self, job: &mut Job) -> rtformer::Result<Opened> {
        if job.done {
            return Ok(Opened::Before(Vec::new()));
        }
        let started = Instant::now();
        let (Content { bytes, tag }, digest) = if self.args.cut().is_some()
            && let Some(file) = job.file()
        {
            (Content { bytes: Vec::new(), tag: None }, files::digest_of_file(file)?) // it is read while it is segmented
        } else {
            let content = job.read()?;
            let digest = files::digest(&content.bytes);
            (content, digest)
        };
        let read_ms = started.elapsed().as_secs_f64() * 1e3;
        let record = Record::with_digest(&job.name, digest, &self.settings);
        let version = tag.unwrap_or_else(|| record.sha256.clone());
        let mut replaces = false;
        if self.args.resume {
            match self.target.progress(&self.emits, job, &version, &record)? {
                Progress::Done => return Ok(Opened::Before(self.target.fingerprints(job, &version, &record))),
                progress => replaces = progress == Progress::Replace,
            }
        } else if !self.args.overwrite {
            self.target.check_absent(&self.emits, &job.stem, job.existing.as_deref())?; // for the pictures of streams
        }
        if let Some(cut) = self.args.cut() {
            self.target.check_writable(&self.emits, &job.stem)?;
            let bytes = Some(bytes).filter(|_| job.file().is_none());
            return Ok(Opened::Large(Box::new(Large { cut, bytes, record, version, replaces })));
        }
        let image = self.args.photos.decoder().decode(&bytes, &job.name)?;
        if let Some(warning) = photos::warning(&job.name, &image) {
            self.console.note(&warning);
        }
        self.target.check_writable(&self.emits, &job.stem)?;
        Ok(Opened::Photo(Box::new(Photo { image, record, version, read_ms, replaces })))
    }

    /// Segments `--batch` photos at a time and returns the scenes in order.
    fn segmented<'b>(
        &'b self,
        mut opened: impl Iterator<Item = (Job, rtformer::Result<Opened>)> + Send + 'b,
    ) -> impl Iterator<Item = (Job, rtformer::Result<Seen>)> + Send + 'b {
        let mut ready = VecDeque::new();
        std::iter::from_fn(move || {
            if ready.is_empty() {
                let size = batch::size(self.args.batch, &self.segmenter);
                let batch: Vec<_> = opened.by_ref().take(usize::from(size)).collect();
                ready.extend(self.segment_batch(batch));
            }
            ready.pop_front()
        })
    }

    fn segment_batch(
        &self,
        batch: Vec<(Job, rtformer::Result<Opened>)>,
    ) -> impl Iterator<Item = (Job, rtformer::Result<Seen>)> {
        let photos = batch.iter().filter_map(|(_, opened)| match opened {
            Ok(Opened::Photo(photo)) => Some(&photo.image),
            _ => None,
        });
        let mut scenes = self.segmenter.segment_each(photos).into_iter();
        batch.into_iter().map(move |(job, opened)| {
            let seen = opened.and_then(|opened| {
                let photo = match opened {
                    Opened::Photo(photo) => photo,
                    Opened::Large(large) => return self.segment_large(&job, *large),
                    Opened::Before(fingerprints) => return Ok(Seen::Before(fingerprints)),
                };
                let missing = || Error::Backend { operation: "segment_batch", reason: "a photo has no result".into() };
                let scene = scenes.next().unwrap_or_else(|| Err(missing()))?;
                Ok(Seen::Scene(Box::new((*photo, scene))))
            });
            (job, seen)
        })
    }

    /// Segments a photo in tiles and writes its outputs.
    fn segment_large(&self, job: &Job, large: Large) -> rtformer::Result<Seen> {
        let Self { args, console, emits, segmenter, labels, target, .. } = self;
        let replaced = large.replaces;
        let strips = Strips { args, console, emits, segmenter, labels, target };
        let fingerprints = strips.segment(job, large)?;
        Ok(Seen::Written(Written::Now { line: String::new(), replaced, fingerprints }))
    }

    /// Writes the requested outputs.
    fn encode(&self, job: &Job, seen: rtformer::Result<Seen>) -> rtformer::Result<Written> {
        let (photo, scene) = match seen? {
            Seen::Scene(seen) => *seen,
            Seen::Written(written) => return Ok(written),
            Seen::Before(fingerprints) => return Ok(Written::Before { fingerprints }),
        };
        let started = Instant::now();
        let path = |emit: Emit| if self.args.to_stdout() { "-".into() } else { emit.path(&job.stem) };
        let replaces = |emit| self.args.overwrite || self.args.resume && job.has(emit);
        let mut fingerprints = Vec::new();
        let mut written = |emit, tag: Option<String>| {
            let tag = tag.unwrap_or_default();
            fingerprints.extend(self.target.fingerprint(emit, &job.stem, &tag, &photo.version, &photo.record));
        };
        let drawing = Drawing {
            labels: &self.labels,
            alpha: self.args.alpha,
            tolerance: self.args.tolerance,
            legend: self.args.legend,
            binaries: self.args.binaries(),
            traced: OnceCell::new(),
        };
        for &emit in self.emits.iter().filter(|emit| **emit != Emit::Json) {
            let record = photo.record.of(emit);
            let tag = self.target.write(&path(emit), replaces(emit), |out| {
                outputs::encode(emit, out, &photo.image, &scene, &drawing, &record)
            })?;
            written(emit, tag);
        }
        let mut line = String::new();
        if self.args.json || self.emits.contains(&Emit::Json) {
            let outputs: Vec<_> = self.emits.iter().map(|&emit| (emit.name(), path(emit))).collect();
            let encode_ms = started.elapsed().as_secs_f64() * 1e3;
            line = report::scene(&job.name, &scene, photo.read_ms, encode_ms, &outputs, &photo.record.of(Emit::Json));
        }
        if self.emits.contains(&Emit::Json) {
            let tag = self.target.write(&path(Emit::Json), replaces(Emit::Json), |out| writeln!(out, "{line}"))?;
            written(Emit::Json, tag);
        }
        Ok(Written::Now { line, replaced: photo.replaces, fingerprints })
    }
}

/// The settings that determine the outputs' content.
pub(super) fn settings(args: &Args) -> anyhow::Result<Settings> {
    let device = args.device();
    Ok(Settings {
        weights: args.model.digest()?,
        size: args.size.to_string(),
        precision: device.precision.map_or("default".into(), |precision| precision.to_string()),
        pad: match device.pad.unwrap_or_default() {
            Padding::FromWeights => "default".into(),
            Padding::None => "none".into(),
            Padding::Multiple(multiple) => multiple.to_string(),
        },
        depth: args.photos.depth.to_string(),
        reject_below: args.reject_below,
        adaptive: args.adaptive,
        alpha: Some(args.alpha),
        tolerance: Some(args.tolerance),
        legend: args.legend,
        augmentation: args.model.augment.text(),
        classes: args.model.classes_text(),
        tile: args.cut().map(|cut| cut.text()),
        bands: args.photos.bands,
        decide: Some(args.model.decide).filter(|rule| *rule != Decision::Argmax).map(|rule| rule.to_string()),
    })
}

fn segmenter(args: &Args) -> anyhow::Result<Segmenter> {
    let emits = args.emits();
    let wants_confidence = args.json || emits.iter().any(|emit| matches!(emit, Emit::Confidence | Emit::Json));
    let mut builder = args.model.builder()?.size(args.size).confidence(wants_confidence);
    builder = builder.logits(emits.contains(&Emit::Logits));
    if let Some(probability) = args.reject_below {
        builder = builder.reject_below(probability);
    }
    if let Some(epsilon) = args.adaptive {
        builder = builder.adaptive(epsilon);
    }
    opened(builder.build())
}
