//! Kafka's default choice of a partition, so that a key lands in the same one whoever writes it.

/// The partition of a keyed record: the positive part of the key's 32-bit murmur2 hash, modulo the number of partitions.
///
/// # Shape
/// `n_partitions` is at least 1.
pub(crate) fn partition_of_key(key: &[u8], n_partitions: i32) -> i32 {
    let positive = (murmur2(key) & 0x7fff_ffff).cast_signed();
    positive % n_partitions.max(1)
}

/// Murmur2 with the seed of Kafka's Java client.
///
/// # Source
/// Austin Appleby's MurmurHash2, as `org.apache.kafka.common.utils.Utils.murmur2` applies it.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Lengths beyond 32 bits cannot occur: records are bounded far below.
    let mut hash = SEED ^ (data.len() & 0xffff_ffff) as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Kafka's own unit test expects.
    #[test]
    fn hashes_as_the_java_client_does() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key).cast_signed(), expected, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn stays_within_the_partitions() {
        for n in 1..7 {
            assert!((0..n).contains(&partition_of_key(b"21", n)));
        }
    }
}
