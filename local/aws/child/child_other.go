//go:build !linux

package child

import "syscall"

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func launch(c <-chan func()) {
	for f := range c {
		f()
	}
}
