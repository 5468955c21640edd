//! The colours of the classes.

/// One RGB colour per class, in the order of the train ids.
///
/// ```
/// use rtformer::pixels::Palette;
///
/// let palette = Palette::new(vec![[128, 64, 128], [244, 35, 232]]);
/// assert_eq!(palette.color(1), [244, 35, 232]);
/// assert_eq!(palette.color(255), [0, 0, 0], "ignored pixels are black");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// A palette of these RGB colours.
    pub fn new(colors: Vec<[u8; 3]>) -> Self {
        Self(colors)
    }

    /// The colour of a class; black for an id without a colour, such as the ignore id.
    pub fn color(&self, id: u16) -> [u8; 3] {
        self.0.get(usize::from(id)).copied().unwrap_or_default()
    }

    /// The number of colours.
    ///
    /// ```
    /// # use rtformer::pixels::Palette;
    /// assert_eq!(Palette::new(vec![[1, 2, 3]]).len(), 1);
    /// assert!(Palette::default().is_empty());
    /// ```
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the palette has no colours.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The colours as bytes: `r, g, b, r, g, b, …`.
    ///
    /// ```
    /// let palette = rtformer::pixels::Palette::new(vec![[128, 64, 128], [244, 35, 232]]);
    /// assert_eq!(palette.as_flat_rgb(), [128, 64, 128, 244, 35, 232]);
    /// ```
    pub fn as_flat_rgb(&self) -> &[u8] {
        self.0.as_flattened()
    }
}
