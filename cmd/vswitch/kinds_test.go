package main

import (
	"testing"

	"github.com/vswitch/vswitch/port"
)

// Each kind says what its ports take at most: the daemon would die of the first port beyond a limit
// of threads.
func TestKindsAreSized(t *testing.T) {
	for _, k := range kindList() {
		s, ok := k.(port.Sized)
		if !ok {
			t.Errorf("the kind %s is not Sized", k.Name())
			continue
		}
		spec, err := portCatalog().Read("p0", k.Name(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if needs := s.Needs(spec, 2); needs.Files < 1 {
			t.Errorf("a port of the kind %s takes %+v", k.Name(), needs)
		}
	}
}
