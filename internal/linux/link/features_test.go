package link_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestFeatures(t *testing.T) {
	t.Parallel()
	testenv.Tool(t, "ethtool")
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0")
	ns.Do(func() {
		l, err := link.ByName("a0")
		if err != nil {
			t.Fatal(err)
		}
		isOn := func(feature string) bool {
			t.Helper()
			return strings.Contains(ns.Run("ethtool", "-k", "a0"), feature+": on")
		}
		// What is off, fixed or unknown is left alone.
		for _, features := range [][]string{nil, {"rx-gro-list", "rx-lro", "esp-hw-offload", "no-such-feature", ""}} {
			if were, err := l.TurnOff(features...); err != nil || len(were) != 0 {
				t.Errorf("%q: %q were on, %v", features, were, err)
			}
		}
		ns.Run("ethtool", "-K", "a0", "rx-gro-list", "on")
		were, err := l.TurnOff("rx-lro", "rx-gro-list", "rx-gro")
		if err != nil || !slices.Contains(were, "rx-gro-list") || slices.Contains(were, "rx-lro") {
			t.Errorf("%q were on, %v", were, err)
		}
		if isOn("rx-gro-list") {
			t.Error("rx-gro-list is on")
		}
		if err := l.TurnOn(were...); err != nil || !isOn("rx-gro-list") {
			t.Errorf("turned on: %v, on %v", err, isOn("rx-gro-list"))
		}
		ns.Run("ip", "link", "del", "a0")
		if _, err := l.TurnOff("rx-lro"); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("a device that is gone: %v", err)
		}
	})
}
