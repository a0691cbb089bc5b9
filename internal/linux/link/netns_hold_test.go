package link_test

import (
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// A namespace that is held can be entered from any thread, also from one inside.
func TestHoldNetns(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "here0", "type", "bridge")
	var held *link.Netns
	var id link.NetnsID
	ns.Do(func() {
		n, release, err := link.HoldNetns()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		held = n
		if id, err = link.ThreadNetns(); err != nil {
			t.Fatal(err)
		}
	})
	look := func() error {
		there, err := link.ThreadNetns()
		if err == nil && there != id {
			t.Errorf("%+v is another namespace than %+v", there, id)
		}
		if err == nil {
			_, err = link.ByName("here0")
		}
		return err
	}
	if here, err := link.ThreadNetns(); err != nil || here == id {
		t.Errorf("the test runs in the namespace: %v", err)
	}
	for range 3 {
		if err := held.Do(look); err != nil {
			t.Error(err)
		}
	}
	if err := held.Do(func() error { return held.Do(look) }); err != nil {
		t.Error(err)
	}
}
