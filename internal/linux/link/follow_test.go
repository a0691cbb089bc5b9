package link

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// Whoever sends to a follower what is no message does not end it.
func TestFollowerGoesOn(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	ns.Run("ip", "link", "set", "vm0", "up")
	var queued atomic.Bool
	ns.Do(func() {
		l, err := ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		stop, err := FollowQueue(l.Index, queued.Store)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		sockets, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		for _, line := range strings.Split(string(sockets), "\n")[1:] {
			var address string
			var protocol, pid, groups uint32
			const following = 1 << (unix.RTNLGRP_TC - 1)
			if n, _ := fmt.Sscanf(line, "%s %d %d %x", &address, &protocol, &pid, &groups); n < 4 || protocol != unix.NETLINK_ROUTE || groups != following {
				continue
			}
			sent++
			for range 3 {
				if err := unix.Sendto(fd, []byte{1, 2, 3}, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: pid}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if sent != 1 {
			t.Fatalf("there are %d followers:\n%s", sent, sockets)
		}
	})
	for _, want := range []bool{true, false, true} {
		verb := "del"
		if want {
			verb = "add"
		}
		ns.Run("tc", "qdisc", verb, "dev", "vm0", "clsact")
		testenv.Eventually(t, fmt.Sprintf("the hook is there: %t", want), func() bool { return queued.Load() == want })
	}
}
