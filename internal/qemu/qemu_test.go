package qemu

import (
	"os/exec"
	"strings"
	"testing"
)

// A shell and then QEMU read a value as it is: QEMU takes two commas for one.
func TestValue(t *testing.T) {
	for _, text := range []string{"/run/vswitch/sw0/vm0.sock", "vm-0.x_y", "/a b/c", "/a,b", "/it's", `/"a"\b`, "/$HOME/`id`/*;&|<>(){}[]?!#~^", "~/x", "/ü", "/a\tb", ""} {
		line := Line([]string{"path=" + Value(text) + ",x", text})
		out, err := exec.Command("sh", "-c", `printf '%s\n' `+line).Output()
		path, rest, _ := strings.Cut(string(out), "\n")
		if got := strings.ReplaceAll(path, ",,", ","); err != nil || got != "path="+text+",x" || rest != text+"\n" {
			t.Errorf("%s: the shell reads %q, %v", line, out, err)
		}
	}
	if got := Line([]string{"-netdev", Value("/run/user/1000/a,b@c.sock")}); got != "-netdev /run/user/1000/a,,b@c.sock" {
		t.Errorf("%s is quoted for nothing", got)
	}
}
