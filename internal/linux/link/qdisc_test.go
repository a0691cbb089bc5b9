package link

import (
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestFollowQueue(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Run("ip", "tuntap", "add", "dev", "mq0", "mode", "tap", "multi_queue")
	followed := make(map[string]*atomic.Bool)
	for _, name := range []string{"vm0", "mq0"} {
		ns.Run("ip", "link", "set", name, "up")
		queued := new(atomic.Bool)
		followed[name] = queued
		ns.Do(func() {
			l, err := ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			stop, err := FollowQueue(l.Index, queued.Store)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stop)
		})
	}
	// want compares what is followed, and what one would see who came just now.
	want := func(what, name string, want bool) {
		t.Helper()
		testenv.Eventually(t, what, func() bool { return followed[name].Load() == want })
		ns.Do(func() {
			l, err := ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			fresh := !want
			stop, err := FollowQueue(l.Index, func(queued bool) { fresh = queued })
			if err != nil {
				t.Fatal(err)
			}
			stop()
			if fresh != want {
				t.Errorf("%s: %v at first", what, fresh)
			}
		})
	}
	want("the kernel's own", "vm0", false)
	want("the kernel's own of several queues", "mq0", false)
	for _, step := range []struct {
		args   []string
		queued bool
	}{
		{[]string{"qdisc", "replace", "dev", "vm0", "root", "noqueue"}, false},
		{[]string{"qdisc", "replace", "dev", "vm0", "root", "handle", "1:", "htb", "default", "1"}, true},
		{[]string{"class", "add", "dev", "vm0", "parent", "1:", "classid", "1:1", "htb", "rate", "20mbit"}, true},
		{[]string{"qdisc", "add", "dev", "vm0", "parent", "1:1", "handle", "2:", "pfifo"}, true},
		{[]string{"qdisc", "del", "dev", "vm0", "parent", "1:1"}, true},
		{[]string{"qdisc", "replace", "dev", "vm0", "root", "tbf", "rate", "10mbit", "burst", "10k", "latency", "50ms"}, true},
		{[]string{"qdisc", "del", "dev", "vm0", "root"}, false},
		{[]string{"qdisc", "add", "dev", "vm0", "ingress"}, false},
		{[]string{"qdisc", "del", "dev", "vm0", "ingress"}, false},
		{[]string{"qdisc", "add", "dev", "vm0", "clsact"}, true},
		{[]string{"qdisc", "replace", "dev", "vm0", "root", "handle", "1:", "htb"}, true},
		{[]string{"qdisc", "del", "dev", "vm0", "clsact"}, true},
		{[]string{"qdisc", "replace", "dev", "vm0", "root", "noqueue"}, false},
	} {
		ns.Run("tc", step.args...)
		want(strings.Join(step.args, " "), "vm0", step.queued)
	}
	want("another interface", "mq0", false)
	ns.Do(func() {
		if _, err := FollowQueue(9999, func(bool) {}); err == nil {
			t.Error("an interface that is not there is followed")
		}
	})
}

func FuzzQueue(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWQDISC), []byte{0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 8, 0, 1, 0, 'h', 't', 'b', 0})
	f.Fuzz(func(t *testing.T, typ uint16, m []byte) { new(queue).take(typ, m) })
}

// News that was lost is asked for.
func TestFollowLost(t *testing.T) {
	q := queue{root: true}
	q.take(unix.RTM_NEWQDISC, nil)
	q.take(unix.RTM_NEWQDISC, make([]byte, 20))
	q.take(unix.RTM_NEWTFILTER, make([]byte, 40))
	if !q.root || q.egress {
		t.Errorf("%+v by messages that say nothing", q)
	}
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Do(func() {
		l, err := ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		var calls, queued atomic.Int32
		stop, err := FollowQueue(l.Index, func(is bool) {
			calls.Add(1)
			if is {
				queued.Add(1)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		was := calls.Load()
		id := follows{group: unix.RTNLGRP_TC}
		if id.dev, id.ino, err = identity(threadNetns); err != nil {
			t.Fatal(err)
		}
		followers.Lock()
		w := followers.of[id]
		followers.Unlock()
		w.mu.Lock()
		call(w.by[l.Index], nil)
		w.mu.Unlock()
		if calls.Load() <= was || queued.Load() != 0 {
			t.Errorf("%d calls, %d of them say that it is queued", calls.Load(), queued.Load())
		}
	})
}

func FuzzRoot(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0x73, 0x76, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 8, 0, 1, 0, 'h', 't', 'b', 0})
	f.Fuzz(func(t *testing.T, m []byte) { new(Root).parse(m) })
}
