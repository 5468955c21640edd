//! How many multiplications the parts of an RTFormer take.

use super::Config;
use crate::model::ladder::Work;

impl Config {
    /// The multiplications of the network's parts, per pixel of the photo. Norms, pools and resizes are not counted.
    pub fn work(&self) -> Work {
        let sizes = [self.base_channels, self.spp_channels, self.head_channels, self.num_classes, self.cross_size];
        let [c, spp, head, classes, side] = sizes.map(|size| size as f64);
        let [blocks1, blocks2, blocks3] = self.blocks().map(|blocks| blocks as f64);
        // A stage of residual blocks from `i` to `o` channels; the first block has a 1x1 convolution on its shortcut if they differ.
        let stage = |i: f64, o: f64, blocks: f64| {
            let shortcut = if i == o { 0.0 } else { i * o };
            9.0 * i * o + 9.0 * o * o + shortcut + (blocks - 1.0) * 18.0 * o * o
        };
        let injections = self.use_injection.map(|inject| f64::from(u8::from(inject))).iter().sum::<f64>();

        let stem = 27.0 * c / 4.0 + 9.0 * c * c / 16.0;
        let layers =
            stage(c, c, blocks1) / 16.0 + stage(c, 2.0 * c, blocks2) / 64.0 + stage(2.0 * c, 4.0 * c, blocks3) / 256.0;
        let x3_ = 8.0 * c * c / 256.0 + stage(2.0 * c, 2.0 * c, 1.0) / 64.0;

        // Shortcut, keys, values, MLP and compression; the second block has no shortcut.
        let block4 = (4.0 * 8.0 + 4.0 * 8.0 + 64.0 + 18.0 * 64.0 + 16.0) * c * c;
        let block5 = (64.0 + 64.0 + 18.0 * 64.0 + 16.0) * c * c;
        let injection = 9.0 * 8.0 * c * c / 256.0 + 9.0 * 32.0 * c * c / 1024.0;
        let pooled = 1.0 + 1.0 / 4.0 + 1.0 / 16.0 + 1.0 / 64.0;
        let dappm = 8.0 * c * spp * pooled + 4.0 * 9.0 * spp * spp + 5.0 * spp * 2.0 * c + 16.0 * c * c;

        let attention = 2.0 * 2.0 * c * side * side;
        let mlp = 18.0 * 4.0 * c * c;
        let to_logits = |i: f64, inner: f64| 9.0 * i * inner + inner * classes;
        Work {
            trunk: stem + layers + x3_,
            exit: to_logits(2.0 * c, head) / 64.0,
            low: (block4 + block5 + dappm) / 1024.0 + injections * injection,
            high: (2.0 * (attention + mlp) + to_logits(4.0 * c, 2.0 * head)) / 64.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RtFormer;
    use super::*;
    use crate::backend::{Backend, Cpu, Isa};
    use crate::model::Noise;

    /// The CPU counts the operations of each layer that it runs.
    #[test]
    fn the_count_is_that_of_the_layers() {
        let b = Cpu::new(Isa::best(), 1).unwrap();
        for config in [Config::slim(19), Config { use_injection: [true, false], ..Config::slim(150) }] {
            let network = RtFormer::load(&b, &config, &mut Noise::new(7)).unwrap();
            let photo = b.upload(&vec![0.0; 3 * 256 * 512], [1, 3, 256, 512]).unwrap();
            b.profile(true);
            b.run(|| network.forward(&b, photo)).unwrap();
            // Each key and value costs as much for every photo, whatever its size.
            let pooled = |name: &str| name.contains("cross_kv");
            let flops: f64 = b.profile(false).iter().filter(|op| !pooled(&op.name)).map(|op| op.flops).sum();
            let ratio = 2.0 * config.work().full() * 256.0 * 512.0 / flops;
            assert!((ratio - 1.0).abs() < 0.005, "{config}: {ratio}");
        }
    }

    #[test]
    fn an_exit_saves_half_of_slim() {
        let Work { trunk, exit, low, high } = Config::slim(19).work();
        let share = |part: f64| (1000.0 * part / (trunk + low + high)).round() / 10.0;
        assert_eq!([share(trunk), share(exit), share(low), share(high)], [46.5, 3.3, 24.5, 29.0]);
        // 37.8 billion at 2048x1024
        assert!(((trunk + low + high) * 2048.0 * 1024.0 / 1e9 - 37.8).abs() < 0.1);
    }
}
