//! How an export is compressed, if it is.

use std::{
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};

/// What the events of a quiet day compress to tenfold already; more effort gains little.
const ZSTD_LEVEL: i32 = 6;

/// The compression of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// None.
    #[default]
    Plain,
    /// gzip, `.gz`.
    Gzip,
    /// Zstandard, `.zst`.
    Zstd,
}

impl Packing {
    /// By a file's name, as it is chosen when an export is written.
    #[must_use]
    pub fn named(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// By a file's first bytes; `None` if no export begins like that.
    #[must_use]
    pub fn detect(first: &[u8]) -> Option<Self> {
        match first {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'{', ..] => Some(Self::Plain),
            _ => None,
        }
    }
}

/// Compresses on the way to a sink.
pub(super) enum Packed<W: Write> {
    Plain(BufWriter<W>),
    Gzip(GzEncoder<BufWriter<W>>),
    Zstd(zstd::Encoder<'static, BufWriter<W>>),
}

impl<W: Write> Packed<W> {
    pub(super) fn into(sink: W, packing: Packing) -> io::Result<Self> {
        let sink = BufWriter::new(sink);
        Ok(match packing {
            Packing::Plain => Self::Plain(sink),
            Packing::Gzip => Self::Gzip(GzEncoder::new(sink, Compression::default())),
            Packing::Zstd => {
                let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Writes the end of the compressed stream, and gives the sink back.
    pub(super) fn finish(self) -> io::Result<W> {
        let mut sink = match self {
            Self::Plain(sink) => sink,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        sink.flush()?;
        sink.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl<W: Write> Write for Packed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(sink) => sink.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(sink) => sink.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// The lines of a file, whatever it is compressed with; nothing if it cannot be an export.
pub(super) fn unpacked(file: impl Read + Send + 'static) -> io::Result<Option<Box<dyn BufRead + Send>>> {
    let mut file = BufReader::new(file);
    let packing = Packing::detect(file.fill_buf()?);
    Ok(Some(match packing {
        None => return Ok(None),
        Some(Packing::Plain) => Box::new(file),
        Some(Packing::Gzip) => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        Some(Packing::Zstd) => Box::new(BufReader::new(zstd::Decoder::with_buffer(file)?)),
    }))
}
