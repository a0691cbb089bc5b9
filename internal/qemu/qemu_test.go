package qemu

import (
	"os/exec"
	"strings"
	"testing"
)

// A shell and then QEMU read a value as it is: QEMU takes two commas for one.
func TestValue(t *testing.T) {
	for _, text := range []string{"/run/vswitch/sw0/vm0.sock", "vm-0.x_y", "/a b/c", "/a,b", "/it's", `/"a"\b`, "/$HOME/`id`/*;&|<>(){}[]?!#~^", "~/x", "/ü", "/a\tb", ""} {
		out, err := exec.Command("sh", "-c", `printf %s path=`+Value(text)+`,x`).Output()
		if got := strings.ReplaceAll(string(out), ",,", ","); err != nil || got != "path="+text+",x" {
			t.Errorf("%s: the shell reads %q, %v", Value(text), got, err)
		}
	}
	if got := Value("/run/user/1000/a,b@c.sock"); got != "/run/user/1000/a,,b@c.sock" {
		t.Errorf("%s is quoted for nothing", got)
	}
}
