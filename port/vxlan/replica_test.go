package vxlan

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// paths is a kernel that has so many paths, and notes which are in use.
type paths struct {
	Kernel
	most int
	used []uint16
	bad  int // times that one ended which was none
}

func (p *paths) Join(netip.Addr, uint32, uint16, int) (uint16, error) {
	if len(p.used) == p.most {
		return 0, errors.New("there is no room for another path")
	}
	path := uint16(unknownVNI + 1)
	for slices.Contains(p.used, path) {
		path++
	}
	p.used = append(p.used, path)
	return path, nil
}

func (p *paths) Leave(path uint16) {
	if i := slices.Index(p.used, path); i >= 0 {
		p.used = slices.Delete(p.used, i, i+1)
	} else {
		p.bad++
	}
}

// A host that found no room in the kernel leaves a network without a word to it, and takes nobody's
// place along; that there was no room is told once.
func TestNoPath(t *testing.T) {
	k := &paths{most: 1}
	told := make(chan struct{}, 1)
	tun := new(tunnel)
	tun.news = told
	r := newReplica(tun, k)
	n := &network{vni: 7}
	a, b := &vtep{number: 1, addr: netip.MustParseAddr("192.0.2.1")}, &vtep{number: 2, addr: netip.MustParseAddr("192.0.2.2")}
	r.join(n, a)
	if n.path(a) == 0 || len(told) != 0 || r.full.Load() != nil {
		t.Fatalf("path %d of the first; told %d", n.path(a), len(told))
	}
	r.join(n, b)
	if n.path(b) != 0 || len(told) != 1 || r.full.Load() == nil {
		t.Errorf("path %d of the second; told %d", n.path(b), len(told))
	}
	<-told
	r.join(n, b)
	if len(told) != 0 {
		t.Error("told again")
	}
	path := n.path(a)
	r.leave(n, b)
	r.leave(n, b)
	if m := r.byPath[path].Load(); k.bad != 0 || len(k.used) != 1 || m == nil || m.v != a {
		t.Errorf("%d ended that were none; the first is %v", k.bad, m)
	}
	r.leave(n, a)
	r.join(n, b)
	if m := r.byPath[n.path(b)].Load(); k.bad != 0 || n.path(a) != 0 || n.path(b) == 0 || m == nil || m.v != b {
		t.Errorf("the second in the place of the first: path %d, %v", n.path(b), m)
	}
}

// kept is a kernel that keeps stations.
type kept struct {
	paths
	stations map[fdb.Key]uint16
}

func (k *kept) SetStation(key fdb.Key, path uint16, _ time.Duration) { k.stations[key] = path }
func (k *kept) DeleteStation(key fdb.Key)                            { delete(k.stations, key) }
func (k *kept) Commit()                                              {}

func (k *kept) Stations(f func(fdb.Key, uint16, time.Duration)) {
	for key, path := range k.stations {
		f(key, path, 0)
	}
}

// After more changes than there is room for, the kernel has the stations that the directory has and
// no others; unless the kernel's part has ended.
func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tun := quiet(t, port.VXLAN, "100")
		k := &kept{paths{most: 9}, make(map[fdb.Key]uint16)}
		r := newReplica(&tun.tunnel, k)
		n, v := tun.networks.Load().byVNI[100], (*tun.byAddr.Load())[netip.MustParseAddr("192.0.2.2")]
		r.join(n, v)
		const far, stale = port.MAC(0x02_00_00_00_00_02), port.MAC(0x02_00_00_00_00_03)
		if err := tun.SetRemote(100, far, v.addr); err != nil {
			t.Fatal(err)
		}
		var right, wrong fdb.Key
		for e := range tun.stations.All() {
			right, wrong = e.Key, fdb.MakeKey(e.Key.VLAN(), uint64(stale))
		}
		quit := make(chan struct{})
		go r.run(quit)
		for _, halted := range []bool{false, true} {
			clear(k.stations)
			k.stations[wrong] = n.path(v)
			r.halted.Store(halted)
			r.Flushed(v.number)
			synctest.Wait()
			_, has := k.stations[right]
			_, hasWrong := k.stations[wrong]
			if len(k.stations) != 1 || has == halted || hasWrong != halted {
				t.Errorf("halted %v: the kernel has %v, not %v at path %d", halted, k.stations, right, n.path(v))
			}
		}
		close(quit)
	})
}
