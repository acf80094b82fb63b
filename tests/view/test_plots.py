"Laws of the drawings: geometry of pyramids and rays, one basis and one scale for features"
import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np, pytest, torch
from spa3r.model.cameras import Cameras,intrinsics,look_at,project
from spa3r.view.plots import CTX,TGT,FeaturePCA,cosine_map,draw_cameras,frustum,show_fields,show_grid,to_img

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

def some_cameras(*shape, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    n = int(np.prod(shape))
    eye,at = [torch.rand(n, 3, generator=g, dtype=dtype)+o for o in (0, 2)]
    w2c = torch.stack([look_at(e, a) for e,a in zip(eye, at)]).reshape(*shape,4,4)
    return Cameras(w2c, intrinsics(torch.rand(*shape, generator=g, dtype=dtype)+.5, (42,70)), (42,70))

@pytest.mark.parametrize('shape,dtype', [((3,),torch.float32), ((2,3),torch.float64), ((1,2,2),torch.float32)])
def test_frustum_ends_at_the_corners_of_the_image(shape, dtype):
    cams = some_cameras(*shape, dtype=dtype)
    f = frustum(cams, .7)
    assert f.shape==(*shape,5,3) and f.dtype==dtype
    uv,z = project(f[...,1:,:], cams.K, cams.w2c)
    want = torch.tensor([[0,0],[70,0],[70,42],[0,42]], dtype=dtype).expand(*shape,4,2)
    torch.testing.assert_close(uv, want, atol=1e-3, rtol=0)
    torch.testing.assert_close(z, torch.full_like(z, .7))
    torch.testing.assert_close(f[...,0,:], cams.positions)

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
def test_to_img_is_the_same_for_all_layouts(dtype):
    x = (torch.rand(3,5,7)*.9).to(dtype)
    a = to_img(x)
    assert a.shape==(5,7,3) and a.dtype==np.float32
    np.testing.assert_array_equal(a, to_img(x.permute(1,2,0)))
    np.testing.assert_array_equal(a[...,0], to_img(x[0]))
    assert to_img(x*9-4).min()==0 and to_img(x*9-4).max()==1
    np.testing.assert_allclose(to_img((x.float()*255).to(torch.uint8)), a, atol=1/200)

@pytest.mark.parametrize('shape,dtype', [((40,9),torch.float32), ((2,3,4,16),torch.bfloat16), ((1,2,6,6,64),torch.float64)])
def test_pca_is_one_orthonormal_basis(shape, dtype):
    x = torch.randn(*shape).mul(torch.linspace(1, 5, shape[-1])).to(dtype)
    pca = FeaturePCA(x)
    rgb = pca(x)
    assert rgb.shape==(*shape[:-1],3) and 0<=rgb.min() and rgb.max()<=1
    torch.testing.assert_close(pca.basis.mT@pca.basis, torch.eye(3), atol=1e-4, rtol=0)
    assert (pca.explained.diff()<=1e-6).all() and 0<pca.explained.sum()<=1+1e-5
    flat = x.flatten(0, -2)
    torch.testing.assert_close(FeaturePCA(flat[torch.randperm(len(flat))])(x), rgb, atol=2e-3, rtol=0)
    p = pca.project(x).flatten(0, -2)
    torch.testing.assert_close((p.mT@p)/len(p), torch.diag((p**2).mean(0)), atol=2e-3*float((p**2).mean()), rtol=0)  # uncorrelated

def test_pca_scale_comes_from_the_fit():
    x = torch.randn(500, 8)
    pca = FeaturePCA(x)
    assert ((pca(x)==0).float().mean(0)-.02).abs().max()<.01
    torch.testing.assert_close(pca(x[:1]), pca(x)[:1])  # what else is shown changes no colour
    assert (pca(x+3)-pca(x)).abs().mean()>.1  # a constant error is seen
    with pytest.raises(ValueError, match='at least 3'): FeaturePCA(torch.randn(2,8))
    with pytest.raises(ValueError, match='fitted on 8'): pca(x[:,:7])
    with pytest.raises(ValueError, match='not finite'): FeaturePCA(torch.full((9,9), torch.inf))

def test_cosine_does_not_depend_on_length():
    a,b = torch.randn(2,3,4,5),torch.randn(2,3,4,5)
    torch.testing.assert_close(cosine_map(3*a, .1*b), cosine_map(b, a), atol=1e-5, rtol=1e-5)
    assert cosine_map(a, a).min()>.9999 and cosine_map(a.bfloat16(), b).shape==(2,3,4)

def test_fields_are_drawn_with_the_given_basis():
    x = torch.randn(3,4,5,12)
    pca = FeaturePCA(x)
    axs = show_fields({'picture':torch.rand(3,3,28,35), 'true':x, 'other':-x}, pca, truth='true', cos={'true':[1,1,1]}, titles='abc')
    np.testing.assert_allclose(axs[1,2].images[0].get_array(), pca(x[2]), atol=1e-6)
    assert [axs[i,0].get_title() for i in range(3)]==['a','1.00','-1.00'] and axs[2,0].get_ylabel()=='other'

def test_cameras_are_drawn_where_they_are():
    cams = some_cameras(4)
    fig,ax = plt.subplots()
    draw_cameras(ax, cams, [0,1,0,1], plane='xz')
    assert [l.get_color() for l in ax.lines]==[CTX,TGT,CTX,TGT]
    np.testing.assert_allclose(ax.lines[2].get_xydata()[0], cams.positions[2,[0,2]], atol=1e-6)
    draw_cameras(plt.figure().add_subplot(projection='3d'), cams, imgs=torch.rand(4,3,42,70), axes=True)

def test_grid_of_pictures():
    x = torch.rand(2,3,4,3,6,8)  # (rows, columns, ...)
    assert show_grid(x[0,0]).shape==(1,4) and show_grid(list(x[0])).shape==(3,4) and show_grid([[x[0,0,0],None],[x[0,0,1]]]).shape==(2,2)
