//! The part of SPDY/3.1 that a client of the runtime's streaming server needs.
//!
//! WebSocket v4 would be simpler, but it cannot end stdin and keep the rest open, and `echo x | kubectl exec -i` needs just that. We
//! never read header blocks (only the side that opens streams sends any that matter, and that is this side) and send ours uncompressed
//! inside a valid zlib stream, so no compression and no dictionary is needed. Flow control does not exist on either side of this protocol
//! as it is spoken here; TCP does it. Answers to <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
/// No peer that we speak to sends larger frames.
const MAX_FRAME: usize = 1 << 20;

/// A frame's length has 24 bits; what is longer is sent in parts.
const MAX_DATA: usize = 1 << 20;

/// Writes frames.
pub(crate) struct Writer<W> {
    io: W,
    next_stream: u32,
    zlib_begun: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(io: W) -> Writer<W> {
        Writer { io, next_stream: 1, zlib_begun: false }
    }

    /// Opens a stream with these headers (lower-case names); returns its id.
    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> std::io::Result<u32> {
        let id = self.next_stream;
        self.next_stream += 2;
        let mut block = BytesMut::new();
        block.put_u32(headers.len() as u32);
        for (name, value) in headers {
            block.put_u32(name.len() as u32);
            block.put_slice(name.as_bytes());
            block.put_u32(value.len() as u32);
            block.put_slice(value.as_bytes());
        }
        let mut payload = BytesMut::new();
        payload.put_u32(id);
        payload.put_u32(0);
        payload.put_u16(0);
        if !self.zlib_begun {
            // The zlib stream begins once; every header block is one stored block of it.
            payload.put_slice(&[0x78, 0x01]);
            self.zlib_begun = true;
        }
        payload.put_u8(0);
        payload.put_u16_le(block.len() as u16);
        payload.put_u16_le(!(block.len() as u16));
        payload.put_slice(&block);
        // An empty stored block is deflate's flush: readers hold data back until they see it.
        payload.put_slice(&[0, 0, 0, 0xff, 0xff]);
        self.control(SYN_STREAM, &payload).await?;
        Ok(id)
    }

    async fn control(&mut self, kind: u16, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = BytesMut::with_capacity(8 + payload.len());
        frame.put_u16(0x8000 | VERSION);
        frame.put_u16(kind);
        frame.put_u32(payload.len() as u32);
        frame.put_slice(payload);
        self.io.write_all(&frame).await?;
        self.io.flush().await
    }

    /// Sends data on a stream.
    pub(crate) async fn data(&mut self, stream: u32, data: &[u8]) -> std::io::Result<()> {
        for part in data.chunks(MAX_DATA) {
            self.frame(stream, part, 0).await?;
        }
        Ok(())
    }

    /// Ends our half of a stream.
    pub(crate) async fn finish(&mut self, stream: u32) -> std::io::Result<()> {
        self.frame(stream, &[], FLAG_FIN).await
    }

    async fn frame(&mut self, stream: u32, data: &[u8], flags: u8) -> std::io::Result<()> {
        let mut head = BytesMut::with_capacity(8);
        head.put_u32(stream & 0x7fff_ffff);
        head.put_u32(u32::from(flags) << 24 | (data.len() as u32 & 0x00ff_ffff));
        self.io.write_all(&head).await?;
        self.io.write_all(data).await?;
        self.io.flush().await
    }

    pub(crate) async fn pong(&mut self, id: u32) -> std::io::Result<()> {
        self.control(PING, &id.to_be_bytes()).await
    }
}

/// What the other side sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Data { stream: u32, data: Bytes, fin: bool },
    Reset { stream: u32 },
    Ping(u32),
    GoAway,
}

/// Reads frames.
pub(crate) struct Reader<R> {
    io: R,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R) -> Reader<R> {
        Reader { io }
    }

    /// The next frame that matters; None when the connection has ended.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            let mut head = [0_u8; 8];
            match self.io.read_exact(&mut head).await {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                other => other?,
            };
            let mut head = &head[..];
            let first = head.get_u32();
            let second = head.get_u32();
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if length > MAX_FRAME {
                return Err(std::io::Error::other("SPDY frame too large"));
            }
            let mut payload = vec![0_u8; length];
            self.io.read_exact(&mut payload).await?;
            if first & 0x8000_0000 == 0 {
                return Ok(Some(Frame::Data { stream: first, data: payload.into(), fin: flags & FLAG_FIN != 0 }));
            }
            let number = payload.first_chunk::<4>().map(|b| u32::from_be_bytes(*b)).unwrap_or_default();
            match (first & 0xffff) as u16 {
                RST_STREAM => return Ok(Some(Frame::Reset { stream: number & 0x7fff_ffff })),
                PING => return Ok(Some(Frame::Ping(number))),
                GOAWAY => return Ok(Some(Frame::GoAway)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn headers_are_stored_zlib_blocks_and_frames_come_back() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        assert_eq!(writer.open(&[("streamtype", "stdin")]).await.unwrap(), 1);
        assert_eq!(writer.open(&[("streamtype", "error")]).await.unwrap(), 3);
        writer.data(1, b"abc").await.unwrap();
        writer.finish(1).await.unwrap();
        writer.pong(7).await.unwrap();
        assert_eq!(&out[..4], [0x80, 3, 0, 1]);
        assert_eq!(&out[18..21], [0x78, 0x01, 0x00], "zlib header, then a stored block");
        let mut reader = Reader::new(&out[..]);
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Data { stream: 1, data: "abc".into(), fin: false }));
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Data { stream: 1, data: Bytes::new(), fin: true }));
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Ping(7)));
        assert_eq!(reader.next().await.unwrap(), None);
    }
}
