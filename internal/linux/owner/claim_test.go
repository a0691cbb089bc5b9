package owner_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/owner"
)

// One of several switches of a name has it; the others are told which.
func TestClaim(t *testing.T) {
	name := fmt.Sprintf("claim%d", os.Getpid())
	one, two := owner.NewClaim(name, "/run/one.sock"), owner.NewClaim(name, "/run/two.sock")
	other := owner.NewClaim(name+"x", "/run/other.sock")
	t.Cleanup(func() { one.Close(); two.Close(); other.Close() })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := one.Take(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := other.Take(); err != nil {
		t.Errorf("another name: %v", err)
	}
	want := fmt.Sprintf("called %s uses devices of this network namespace: process %d with the control socket \"/run/one.sock\"; ", name, os.Getpid())
	for range 200 { // more than wait in a listener's queue
		if err := two.Take(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("got %v, want %q", err, want)
		}
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if err := two.Take(); err != nil {
		t.Errorf("once the first is closed: %v", err)
	}
}

// What has the name and says nothing, or too much, is refused in one line of bounded length.
func TestClaimOfAStranger(t *testing.T) {
	for what, says := range map[string]string{
		"nothing": "", "no line": "x", "lines": "a\x1b[1m\nb\n", "much": strings.Repeat("y", 1<<20),
	} {
		name := fmt.Sprintf("stranger%d%s", os.Getpid(), what)
		ln, err := net.Listen("unix", "@vswitch/"+name)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if c, err := ln.Accept(); err == nil {
				_, _ = c.Write([]byte(says))
				c.Close()
			}
		})
		c := owner.NewClaim(name, "/run/s")
		if err := c.Take(); err == nil || len(err.Error()) > 5000 || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %v", what, err)
		}
		ln.Close()
		wg.Wait()
	}
}
