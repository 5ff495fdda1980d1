"""The axis letters, symbols and words of this package; a page to read, without code.

Axis letters, in every docstring as ``(B, F, D)`` and never for anything else:

======  =================================================================
letter  axis
======  =================================================================
B       volumes (or images) of a batch
V       views of one volume
F       slices of a volume, in anatomical order
C       channels of a slice
H, W    height and width of a slice, in pixels
E       width of the concatenated multi-level embedding of a slice
D       embedding width: of f_inter and of a volume embedding; never depth
K       prototypes or clusters (the paper's H)
N       volumes of the training set
M       hidden slices of a volume
======  =================================================================

Symbols of the paper and their names here:

===============  ==========================================  ==================================
paper            here                                        shape
===============  ==========================================  ==================================
X                ``volume``                                  (F, H, W)
x_i              ``slice`` (``slice_`` where it would hide   (H, W)
                 the builtin)
s, t ~ T         ``transform``; its results are ``views``    V x (B, F, C, H, W)
f_intra          ``SliceEncoder``                            (B, F, C, H, W) -> (B, F, E)
f_inter          ``VolumeEncoder``                           (B, F, D) -> (B, F, D)
Z                ``volume_embeddings``                       (B, D)
f_decode         ``MaskedDecoder``                           (B, F, D) -> (B, F, E)
m                ``mask`` (True = hidden), ``mask_ratio``    (B, F), bool
[MASK]           ``mask_token``                              (D,)
C, c_k           ``prototypes`` (learned),                   (K, D)
                 ``centroids`` (of k-means)
z^T C            ``scores``                                  (B, K)
q                ``codes`` (soft, SwAV),                     (B, K); (N,)
                 ``assignments`` (hard, DeepCluster-v2)
tau, epsilon     ``temperature``, ``epsilon``                scalars
L_inter          ``inter_swav_loss``,                        scalar
                 ``inter_deepclusterv2_loss``
L_mask           ``masked_embedding_loss``                   scalar
(none)           ``valid`` (True = the slice exists)         (B, F), bool
===============  ==========================================  ==================================

Words that are not to be swapped: a *view* is a transformed copy, a *crop* a region cut out, a *slice* a 2D section, a
*volume* a 3D scan, an *embedding* a vector, a *feature* a spatial map. A *stage* (1, 2, 3 of the recipe) is not VISSL's
*phase*. *Preparation* goes from disk to disk, a *transform* stays in memory.
"""
