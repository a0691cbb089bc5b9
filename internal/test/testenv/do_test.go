package testenv

import "testing"

// A part of a test that runs in a namespace is not ended by what failed before it.
func TestDoAfterFailure(t *testing.T) {
	outer := &failed{TB: t}
	ns := NewNetns(t)
	ns.t = outer
	ran := false
	ns.Do(func() { ran = true })
	if !ran || outer.ended {
		t.Errorf("ran: %v, the test was ended: %v; want it to run and to go on", ran, outer.ended)
	}
}

// failed is a test with an error.
type failed struct {
	testing.TB
	ended bool
}

func (f *failed) Failed() bool { return true }
func (f *failed) FailNow()     { f.ended = true }
